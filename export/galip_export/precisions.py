"""The precisions that a bundle may have, and how far each may be from eager PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NoReturn

from galip_runtime.backends.devices import available_devices, computes_in
from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.probe import why_not
from galip_runtime.backends.tables import PRECISIONS as RUNTIME_PRECISIONS
from galip_runtime.backends.tables import supports
from galip_runtime.errors import ProviderUnavailable, UsageError

__all__ = [
    "EMULATED",
    "PRECISIONS",
    "Precision",
    "check_precisions",
    "graph_file",
    "text_precisions",
    "verified_on",
]


@dataclass(frozen=True)
class Precision:
    """What is computed how, and the gate that it has to pass."""

    text: bool
    """whether the text encoder has it, too; it runs once a caption"""
    stored: str
    """the precision whose files it has"""
    relative: float | None = None
    """largest error allowed anywhere, as a share of the standard deviation of what eager gives"""
    psnr_db: float | None = None
    """least PSNR allowed: of the pictures' first percentile, of each batch of sentences; and 12 dB less of
    each odd batch of pictures, which may be a picture or two that are harder than most
    """


PRECISIONS = {
    "fp32": Precision(True, "fp32", relative=1e-4),
    "w16a32": Precision(True, "w16a32", psnr_db=70),
    "fp16": Precision(True, "fp16", psnr_db=45),
    "bf16": Precision(False, "fp32", psnr_db=45),
    "int8": Precision(False, "int8", psnr_db=38),
}
"""`fp32`; `w16a32`, weights stored as fp16 and computed with in fp32; `fp16`, computed in fp16 but for what
measurement keeps in fp32; `bf16`, the fp32 graph that OpenVINO computes in bf16; `int8`, convolutions and
matrix products of 8-bit integers, scaled as calibration says.
"""

EMULATED = "emulated"
"""in place of a device: on the CPU in fp32, every number rounded as in fp16"""


def check_precisions(precisions: Iterable[str]) -> tuple[str, ...]:
    """`precisions`, each once, in their order.

    Raises UsageError for an unknown one and for none at all, ProviderUnavailable for one that nothing here
    computes in: it could not be verified.
    """
    wanted = [precisions] if isinstance(precisions, str) else list(precisions)
    unknown = [name for name in wanted if name not in PRECISIONS]
    if unknown or not wanted:
        what = (
            f"precision {', '.join(map(repr, unknown))} is not known" if unknown else "no precision was named"
        )
        raise UsageError(f"{what}; there are: {', '.join(PRECISIONS)}")
    for name in wanted:
        if not verified_on(name):
            _explain(name)
    if {"int8", "fp16"} & set(wanted):
        import_onnxruntime()  # which calibrates
    return tuple(dict.fromkeys(wanted))


def verified_on(precision: str) -> list[str]:
    """Where `precision` is verified: the devices of this machine's CPU that compute in it.

    fp16 needs a GPU; where none runs graphs, it is `EMULATED`.
    """
    if precision == "fp16":
        return ["cuda" if _cuda_works() else EMULATED]
    cpus = [device for device in ("cpu", "openvino") if device in available_devices()]
    return [device for device in cpus if computes_in(precision, device)]


@functools.cache
def _cuda_works() -> bool:
    return "cuda" in available_devices() and why_not("cuda") is None


def _explain(precision: str) -> NoReturn:
    """Raises ProviderUnavailable for a precision that nothing here computes in."""
    if "openvino" in available_devices() and supports(precision, "openvino"):
        raise ProviderUnavailable(
            f"{precision} cannot be verified here: this CPU does not compute in it, which takes "
            f"{RUNTIME_PRECISIONS[precision].cpu_needs}. Export it elsewhere, or without it"
        )
    raise ProviderUnavailable(
        f"nothing here computes in {precision}, so that it could not be verified: pip install "
        "'galip-runtime[openvino-native]', or export without it"
    )


def text_precisions(precisions: Collection[str]) -> tuple[str, ...]:
    """The text encoder's beside a generator's `precisions`; the first is for those that it does not have."""
    found = tuple(name for name, each in PRECISIONS.items() if name in precisions and each.text)
    others = any(not PRECISIONS[name].text for name in precisions)  # they run on CPUs, which lack fp16
    return ("fp32", *found) if others and not {"fp32", "w16a32"} & set(found) else found


def graph_file(graph: str, precision: str) -> str:
    """The file of `graph` in `precision`: fp32 goes without a suffix."""
    stored = PRECISIONS[precision].stored
    return f"{graph}.onnx" if stored == "fp32" else f"{graph}.{stored}.onnx"
