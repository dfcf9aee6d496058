"""Interpolation between prompts and between seeds: sentence vectors on a line, noise on the sphere."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import MAX_PICTURES, Floats, check_count
from galip_runtime.console import counted
from galip_runtime.errors import UsageError

__all__ = ["check_corners", "check_steps", "interpolate_corners", "lerp", "slerp"]

_Interpolate = Callable[[Floats, Floats, npt.NDArray[np.float64]], Floats]
"""`lerp` or `slerp`"""


def interpolate_corners(
    corners: Floats, across: npt.NDArray[np.float64], down: npt.NDArray[np.float64], method: _Interpolate
) -> Floats:
    """Interpolate corners (1, 2 or 4, C) with weights (T) in [0, 1] to (T, C); one corner gives (1, C)."""
    rows = corners.astype(np.float64)
    if len(rows) == 1:
        return rows
    top = method(rows[0], rows[1], across)
    if len(rows) == 2:
        return top
    return method(top, method(rows[2], rows[3], across), down)


def lerp(a: Floats, b: Floats, weight: npt.NDArray[np.float64]) -> Floats:
    """Interpolate linearly from `a` to `b`, each (C) or (T, C), with `weight` (T)."""
    t = weight[:, None]
    return a * (1 - t) + b * t


def slerp(a: Floats, b: Floats, weight: npt.NDArray[np.float64]) -> Floats:
    """Interpolate along the great circle: the mean of two normal vectors would be too short."""
    t = weight[:, None]
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    angle = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True) / np.maximum(lengths, 1e-300), -1, 1))
    sine = np.sin(angle)
    parallel = sine < 1e-6  # the same direction, or opposite ones, which have no unique great circle
    rotated = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.where(parallel, 1, sine)
    return np.where(parallel, lerp(a, b, weight), rotated)


def check_corners(prompts: int, seeds: int, square: bool = False) -> None:
    """Raise UsageError unless `TextToImage.interpolate` takes this many prompts and seeds."""
    strips_and_squares = ((2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 4))
    if (prompts, seeds) not in ([(2, 2)] if square else strips_and_squares):
        kinds = "two or four prompts, two or four seeds, or as many of both"
        if square:
            kinds = "two prompts and two seeds"
        raise UsageError(
            f"{'a square' if square else 'interpolation'} needs {kinds}, "
            f"not {counted(prompts, 'prompt')} and {counted(seeds, 'seed')}"
        )


def check_steps(steps: int, is_square: bool = False) -> int:
    """Return `steps` along a side. Raises UsageError if they make more than `MAX_PICTURES`."""
    return check_count(steps, "steps", least=2, most=math.isqrt(MAX_PICTURES) if is_square else MAX_PICTURES)
