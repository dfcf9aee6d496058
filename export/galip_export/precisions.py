"""The table of precisions: how each one is made from a graph in fp32, and how far it may be from the model.

Which devices compute in a precision is in the runtime's table, `galip_runtime.backends.tables`. A new
precision is a row there, a row here, and the function that converts a graph to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from galip_runtime.errors import UsageError

__all__ = [
    "INT8_PSNR",
    "PRECISIONS",
    "Precision",
    "check_precisions",
    "describe_precisions",
    "graph_file",
    "text_precisions",
    "with_int8_psnr",
]


INT8_PSNR = 38.0
"""dB: the gate of int8, and what its calibration aims at unless another goal is given"""
_INT8_PSNR_RANGE = (20.0, 100.0)


@dataclass(frozen=True)
class Precision:
    """A precision's conversion and the gate that it has to pass."""

    name: str
    summary: str = ""
    """what the name does not say, for `--help`"""
    text: bool = False
    """whether the text encoder has it too; that runs once for each caption"""
    convert: str | None = None
    """the function that converts a graph, as module:function; None: it is computed from the fp32 graph"""
    calibrated: bool = False
    """whether `convert` runs the graph: `convert(graph, samples, goal_db, progress)` returns the graph and
    what it chose, a dataclass or several for `parity.json`; otherwise `convert(graph)` returns the graph
    """
    size: float = 1.0
    """bytes at most, as a share of fp32's"""
    emulated: bool = False
    """whether it is verified on a GPU, or emulated on the CPU where none runs graphs"""
    relative: float | None = None
    """gate: the largest error anywhere, as a share of the standard deviation of PyTorch's output"""
    psnr_db: float | None = None
    """gate: the least PSNR of the pictures' first percentile and of each batch of sentences; 12 dB less for
    each odd batch of pictures, which may be a picture or two that are harder than most
    """
    goal_db: float | None = None
    """the PSNR that calibration aims at, where that is more than the gate; None: the gate's"""
    may_fail: bool = False
    """whether not every model bears it: where it fails its gate, the bundle is written without it"""

    @property
    def stored(self) -> str:
        """The precision whose files it has."""
        return self.name if self.convert else "fp32"


PRECISIONS = {
    row.name: row
    for row in (
        Precision("fp32", text=True, relative=1e-4),
        Precision(
            "w16a32",  # weights stored as fp16 and computed with in fp32
            "weights as fp16",
            text=True,
            convert="galip_export.fp16_storage:store_weights_as_fp16",
            size=0.5,
            psnr_db=70,
        ),
        Precision(
            "fp16",  # computed in fp16 except what measurement keeps in fp32
            text=True,
            convert="galip_export.mixed_precision:convert_mixed",
            calibrated=True,
            emulated=True,
            psnr_db=45,
            may_fail=True,
        ),
        Precision("bf16", psnr_db=45, may_fail=True),  # OpenVINO computes the fp32 graph in bf16
        Precision(
            "int8",  # convolutions and matrix products in 8-bit integers, scaled by calibration
            convert="galip_export.quantization:quantize",
            calibrated=True,
            psnr_db=INT8_PSNR,
            may_fail=True,
        ),
    )
}


def check_precisions(precisions: Iterable[str]) -> tuple[str, ...]:
    """Return `precisions`, each once, in their order. Raises UsageError for an unknown one and for none."""
    names = [precisions] if isinstance(precisions, str) else list(precisions)
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown or not names:
        problem = (
            f"precision {', '.join(map(repr, unknown))} is not known" if unknown else "no precision was named"
        )
        raise UsageError(f"{problem}; there are: {', '.join(PRECISIONS)}, all")
    return tuple(dict.fromkeys(names))


def with_int8_psnr(goal_db: float | None, precisions: Collection[str]) -> dict[str, Precision]:
    """Return the table with int8 calibrated to a PSNR of `goal_db`; None: as it is.

    A lower goal lowers int8's gate. A higher one does not raise it: what int8 leaves in float is computed in
    bf16 on some CPUs, and no choice of layers is better than that.

    Raises UsageError for a goal that is out of range, or where int8 is not among the `precisions`.
    """
    if goal_db is None:
        return PRECISIONS
    least, most = _INT8_PSNR_RANGE
    if not least <= goal_db <= most:
        raise UsageError(f"the PSNR of int8 is {goal_db:g} dB; it is between {least:g} and {most:g}")
    if "int8" not in precisions:
        raise UsageError(
            "a PSNR of int8 (--int8-psnr) is given and int8 is not exported: add it to --precision"
        )
    row = replace(PRECISIONS["int8"], psnr_db=min(goal_db, INT8_PSNR), goal_db=goal_db)
    return {**PRECISIONS, row.name: row}


def describe_precisions() -> str:
    """Return the names, with their summaries, for `--help`."""
    rows = PRECISIONS.values()
    return ", ".join(f"{row.name} ({row.summary})" if row.summary else row.name for row in rows)


def text_precisions(precisions: Collection[str]) -> tuple[str, ...]:
    """Return the text encoder's precisions beside a generator's `precisions`.

    The first one goes with those precisions that the text encoder does not have.
    """
    names = tuple(name for name, row in PRECISIONS.items() if name in precisions and row.text)
    others = any(not PRECISIONS[name].text for name in precisions)  # they run on CPUs, which lack fp16
    return ("fp32", *names) if others and not {"fp32", "w16a32"} & set(names) else names


def graph_file(graph: str, precision: str) -> str:
    """Return the file name of `graph` in `precision`; fp32 has no suffix."""
    stored = PRECISIONS[precision].stored
    return f"{graph}.onnx" if stored == "fp32" else f"{graph}.{stored}.onnx"
