"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["psnr"]


def psnr(reference: NDArray[Any], result: NDArray[Any], data_range: ArrayLike) -> NDArray[np.float64]:
    """Return the PSNR (N) of each item of `result` (N, …) against that of `reference` (N, …), in dB.

    10 log10(R² / MSE), computed in float64. MSE is the mean squared difference over all but the first axis.
    R is `data_range`: 255 for 8-bit pictures, 2 for raw ones in [-1, 1], or one number an item (N). Values
    are compared as they are: clamp and round before. Equal items have infinity; others with R = 0 have minus
    infinity.
    """
    difference = result.astype(np.float64) - reference
    error = np.square(difference).mean(axis=tuple(range(1, difference.ndim)))
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = 10 * np.log10(np.square(np.asarray(data_range, np.float64)) / error)
    return np.where(error == 0, np.inf, decibels)
