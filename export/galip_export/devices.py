"""Where a precision is verified: nothing is exported that nothing here computes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from galip_runtime.backends.devices import available_devices, computes_in
from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.probe import why_not
from galip_runtime.backends.tables import PRECISIONS as RUNTIME_PRECISIONS
from galip_runtime.backends.tables import supports
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.install import install_extra

from galip_export.precisions import PRECISIONS, check_precisions

__all__ = ["ALL", "EMULATED", "check_verifiable", "choose_precisions", "verified_on", "why_not_verifiable"]

ALL = "all"
"""in place of precisions: those that can be verified here"""
EMULATED = "emulated"
"""in place of a device: on the CPU in fp32, with every number rounded as in fp16"""


def choose_precisions(precisions: Iterable[str]) -> tuple[str, ...]:
    """Return `precisions`, each once, with `ALL` replaced by those that can be verified here.

    Raises UsageError for an unknown one and for none, ProviderUnavailable as `check_verifiable`.
    """
    names = [precisions] if isinstance(precisions, str) else list(precisions)
    if ALL in names:
        names = [name for name in names if name != ALL] + _verifiable()
    chosen = check_precisions(names)
    check_verifiable(chosen)
    return chosen


def check_verifiable(precisions: Sequence[str]) -> None:
    """Raise ProviderUnavailable for precisions that cannot be verified here, and so not be exported."""
    reasons = {name: reason for name in precisions if (reason := why_not_verifiable(name))}
    if reasons:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ProviderUnavailable(
            f"not every precision can be verified here, and so be exported. {told}. This machine exports "
            f"{', '.join(_verifiable())}; all of them are --precision {ALL}"
        )


def why_not_verifiable(precision: str) -> str | None:
    """Return why `precision` cannot be verified here, and so not be exported, or None.

    Raises ProviderUnavailable where nothing runs graphs.
    """
    if not verified_on(precision):
        if "openvino" in available_devices() and supports(precision, "openvino"):
            return f"this CPU does not compute in it, which takes {RUNTIME_PRECISIONS[precision].cpu_needs}"
        return f"nothing here computes in it; {install_extra('openvino-native')}"
    if PRECISIONS[precision].calibrated:
        try:
            import_onnxruntime()
        except ProviderUnavailable as error:
            return f"onnxruntime calibrates it: {error}"
    return None


def _verifiable() -> list[str]:
    return [name for name in PRECISIONS if why_not_verifiable(name) is None]


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
