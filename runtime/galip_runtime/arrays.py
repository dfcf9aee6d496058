"""Checks and conversions of the arrays and numbers that callers hand in and get back."""

from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import QualityGateFailed, UsageError

__all__ = [
    "MAX_PICTURES",
    "Floats",
    "batches",
    "check_count",
    "check_finite",
    "check_rows",
    "is_integer",
    "short_repr",
    "to_uint8",
]

MAX_PICTURES = 1_000_000
"""Seeds in a series, and pictures of one interpolation."""

Floats = npt.NDArray[np.floating[Any]]


def to_uint8(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Finite float (N, 3, H, W) to uint8 (N, H, W, 3): clamped to [-1, 1], that to 0 … 255, rounded."""
    scaled = np.rint((np.clip(image, -1.0, 1.0) + 1.0) * 127.5)
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1))


def short_repr(value: object) -> str:
    """`value` for an error message: the beginning of its `repr`, or what type it is of."""
    try:
        return f"{value!r:.80}"
    except Exception:  # a caller's object may raise anything, and an int of 4,301 digits does
        return f"a value of type {type(value).__name__}"


def is_integer(value: object) -> TypeGuard[int | np.integer[Any]]:
    """Whether `value` is an integer. A bool and a span of time, which is a `np.integer`, too, are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def check_count(value: object, name: str, least: int = 1, most: int | None = None) -> int:
    """`value` if it is a whole number from `least` to `most`. Raises UsageError otherwise."""
    if not is_integer(value) or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most:,}"
        raise UsageError(f"{name} is a whole number of at least {least}{upper}, not {short_repr(value)}")
    return int(value)


def check_rows(values: Floats, name: str, width: int) -> npt.NDArray[np.float32]:
    """`values` as finite float32 (N, width), N at least 1. Raises UsageError for anything else."""
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{name} is a numpy array of float32, not {type(values).__name__}")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise UsageError(f"{name} has values that are masked: fill them in first")
    if not np.issubdtype(values.dtype, np.floating):
        raise UsageError(f"{name} has dtype {values.dtype}; float32 would be right")
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise UsageError(f"{name} has shape {values.shape}; (N, {width}) with N of at least 1 would be right")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused
        rows = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(rows).all():
        raise UsageError(f"{name} has values that are not finite in float32 (NaN, infinite or too large)")
    return rows


def check_finite(output: npt.NDArray[np.float32], graph: str) -> npt.NDArray[np.float32]:
    """`output`, if all of it is finite. Raises QualityGateFailed naming the `graph` otherwise."""
    if not np.isfinite(output).all():
        raise QualityGateFailed(
            f"the {graph} gave values that are not finite; load the bundle with precision 'fp32', "
            "and export it again if that gives them too"
        )
    return output


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` items."""
    return (slice(start, start + size) for start in range(0, count, size))
