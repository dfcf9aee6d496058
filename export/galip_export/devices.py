"""Where a precision is verified: nothing is exported that nothing here computes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NoReturn

from galip_runtime.backends.devices import available_devices, computes_in
from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.probe import why_not
from galip_runtime.backends.tables import PRECISIONS as RUNTIME_PRECISIONS
from galip_runtime.backends.tables import supports
from galip_runtime.errors import ProviderUnavailable

from galip_export.precisions import PRECISIONS

__all__ = ["EMULATED", "check_verifiable", "verified_on"]

EMULATED = "emulated"
"""in place of a device: on the CPU in fp32, with every number rounded as in fp16"""


def check_verifiable(precisions: Sequence[str]) -> None:
    """Raise ProviderUnavailable for a precision that cannot be verified here, and so not be exported."""
    for name in precisions:
        if not verified_on(name):
            _explain(name)
    if any(PRECISIONS[name].calibrated for name in precisions):
        import_onnxruntime()  # which calibrates


def verified_on(precision: str) -> list[str]:
    """Return where `precision` is verified: the devices of this machine's CPU that compute in it.

    Where the table says so, it is a GPU instead, or `EMULATED` where no GPU runs graphs.
    """
    if PRECISIONS[precision].emulated:
        return ["cuda" if _cuda_works() else EMULATED]
    cpus = [device for device in ("cpu", "openvino") if device in available_devices()]
    return [device for device in cpus if computes_in(precision, device)]


@functools.cache
def _cuda_works() -> bool:
    return "cuda" in available_devices() and why_not("cuda") is None


def _explain(precision: str) -> NoReturn:
    """Raise ProviderUnavailable for a precision that nothing here computes in."""
    if "openvino" in available_devices() and supports(precision, "openvino"):
        raise ProviderUnavailable(
            f"{precision} cannot be verified here: this CPU does not compute in it, which takes "
            f"{RUNTIME_PRECISIONS[precision].cpu_needs}. Export it elsewhere, or without it"
        )
    raise ProviderUnavailable(
        f"nothing here computes in {precision}, so that it could not be verified: pip install "
        "'galip-runtime[openvino-native]', or export without it"
    )
