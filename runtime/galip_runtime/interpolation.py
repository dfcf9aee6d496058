"""Ways between prompts and between seeds: sentence vectors on a line, noise on the sphere."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import MAX_PICTURES, Floats, check_count
from galip_runtime.errors import UsageError

__all__ = ["check_corners", "check_steps", "interpolate_corners", "lerp", "slerp"]

_Path = Callable[[Floats, Floats, npt.NDArray[np.float64]], Floats]


def interpolate_corners(
    corners: Floats, across: npt.NDArray[np.float64], down: npt.NDArray[np.float64], path: _Path
) -> Floats:
    """Corners (1, 2 or 4, C) and places from 0 to 1 → vectors (places, C); (1, C) of one corner."""
    rows = corners.astype(np.float64)
    if len(rows) == 1:
        return rows
    top = path(rows[0], rows[1], across)
    if len(rows) == 2:
        return top
    return path(top, path(rows[2], rows[3], across), down)


def lerp(a: Floats, b: Floats, place: npt.NDArray[np.float64]) -> Floats:
    """Linearly from `a` to `b`, each (C) or (places, C)."""
    t = place[:, None]
    return a * (1 - t) + b * t


def slerp(a: Floats, b: Floats, place: npt.NDArray[np.float64]) -> Floats:
    """From `a` to `b` along the great circle: a mean of two normal vectors would be too short."""
    t = place[:, None]
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    angle = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True) / np.maximum(lengths, 1e-300), -1, 1))
    sine = np.sin(angle)
    straight = sine < 1e-6  # the same direction, or opposite ones, between which there is no one way
    turned = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.where(straight, 1, sine)
    return np.where(straight, lerp(a, b, place), turned)


def check_corners(prompts: int, seeds: int, square: bool = False) -> None:
    """Raises UsageError unless `TextToImage.interpolate` goes between so many prompts and seeds."""
    strips_and_squares = ((2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 4))
    if (prompts, seeds) not in ([(2, 2)] if square else strips_and_squares):
        kinds = "two or four prompts, two or four seeds, or as many of both"
        if square:
            kinds = "two prompts and two seeds"
        raise UsageError(
            f"{'a square' if square else 'interpolation'} goes between {kinds}; {prompts} prompts and "
            f"{seeds} seeds were given"
        )


def check_steps(steps: int, is_square: bool = False) -> int:
    """`steps` along a side, if they make at most `MAX_PICTURES`. Raises UsageError otherwise."""
    return check_count(steps, "steps", least=2, most=math.isqrt(MAX_PICTURES) if is_square else MAX_PICTURES)
