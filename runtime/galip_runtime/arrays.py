"""Checks and conversions of the arrays and numbers that callers pass in and get back."""

import math
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
    "check_number",
    "check_rows",
    "is_integer",
    "not_finite",
    "short_repr",
    "to_uint8",
]

MAX_PICTURES = 1_000_000
"""The limit for seeds in a series and for pictures in one interpolation."""

Floats = npt.NDArray[np.floating[Any]]


def to_uint8(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert finite floats (N, 3, H, W) to uint8 (N, H, W, 3): clamp to [-1, 1], scale to 0 … 255, round."""
    scaled = np.rint((np.clip(image, -1.0, 1.0) + 1.0) * 127.5)
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1))


def short_repr(value: object) -> str:
    """Return the first 80 characters of `repr(value)` for an error message, or its type if `repr` fails."""
    try:
        return f"{value!r:.80}"
    except Exception:  # a caller's object may raise anything; an int of 4,301 digits does
        return f"a value of type {type(value).__name__}"


def is_integer(value: object) -> TypeGuard[int | np.integer[Any]]:
    """Return whether `value` is an integer. Bools and `np.timedelta64`, a `np.integer`, don't count."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def check_count(value: object, name: str, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int. Raises UsageError unless it is a whole number from `least` to `most`."""
    if not is_integer(value) or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most:,}"
        raise UsageError(f"{name} must be a whole number of at least {least}{upper}, not {short_repr(value)}")
    return int(value)


def check_number(value: object, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """Return `value` as a float. Raises UsageError unless it is a number from `least` to `most`.

    A whole number that is too large for a float becomes infinite.
    """
    number = math.nan
    if is_integer(value) or isinstance(value, float | np.floating):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
    if not least <= number <= most:  # NaN is not, either
        limits = "" if math.isinf(most) else f" from {least} to {most}"
        raise UsageError(f"{name} must be a number{limits}, not {short_repr(value)}")
    return number


def check_rows(values: Floats, name: str, width: int) -> npt.NDArray[np.float32]:
    """Return `values` as finite float32 (N, width), N at least 1. Raises UsageError for anything else."""
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{name} must be a numpy array of float32, not {type(values).__name__}")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise UsageError(f"{name} has masked values: fill them in first")
    if not np.issubdtype(values.dtype, np.floating):
        raise UsageError(f"{name} has dtype {values.dtype}; it must be float32")
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise UsageError(f"{name} has shape {values.shape}; it must be (N, {width}) with N at least 1")
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
        rows = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(rows).all():
        raise UsageError(f"{name} has values that are not finite in float32 (NaN, infinite or too large)")
    return rows


def check_finite(output: npt.NDArray[np.float32], graph: str) -> npt.NDArray[np.float32]:
    """Return `output`. Raises QualityGateFailed, naming the `graph`, unless all of it is finite."""
    if not np.isfinite(output).all():
        raise not_finite(graph)
    return output


def not_finite(graph: str) -> QualityGateFailed:
    """Return the error for a `graph` whose output is not finite."""
    return QualityGateFailed(
        f"the {graph} gave values that are not finite; load the bundle with precision 'fp32', "
        "and if that doesn't help, export it again"
    )


def batches(count: int, size: int) -> Iterator[slice]:
    """Iterate over slices of at most `size` that together cover `count` items."""
    return (slice(start, start + size) for start in range(0, count, size))
