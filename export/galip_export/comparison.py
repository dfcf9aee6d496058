"""Comparison of two results: every figure in one call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from galip_runtime.errors import QualityGateFailed

from galip.metrics.psnr import psnr

__all__ = ["Comparison", "compare", "first_percentile", "picture_psnr", "row_psnr"]

_EQUAL_PICTURES, _EQUAL_ROWS = 10 * math.log10(4e20), 200.0
"""dB in place of infinity, so that means and quantiles stay finite"""


@dataclass(frozen=True)
class Comparison:
    """The distance of a result from its reference, over all elements, computed in float64."""

    max_abs: float
    """largest absolute difference"""
    mean_abs: float
    """mean absolute difference"""
    std: float
    """standard deviation of the reference: the scale that the differences are judged on"""
    relative: float
    """max_abs / std; 0 where the two are equal"""
    psnr_db: float | None
    """10 log10(range² / mean squared difference), with the reference's range; None where the two are equal"""
    cosine: float
    """cosine of the angle between the two as vectors"""


def compare(reference: npt.NDArray[Any], result: npt.NDArray[Any]) -> Comparison:
    """Compare `result` with `reference`: the same shape, any real dtype, at least one element.

    Raises QualityGateFailed where either has NaN or infinite numbers, between which there is no distance.
    """
    assert reference.shape == result.shape, (reference.shape, result.shape)
    for name, array in (("the reference", reference), ("the result", result)):
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise QualityGateFailed(f"{bad} of {array.size} numbers of {name} are NaN or infinite")
    a, b = reference.astype(np.float64).ravel(), result.astype(np.float64).ravel()
    error = np.abs(a - b)
    largest, std = float(error.max()), float(a.std())
    decibels = float(psnr(a[None], b[None], a.max() - a.min())[0])
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Comparison(
        max_abs=largest,
        mean_abs=float(error.mean()),
        std=std,
        relative=0.0 if largest == 0 else largest / std if std > 0 else math.inf,
        psnr_db=None if decibels == math.inf else decibels,
        cosine=float(a @ b) / lengths if lengths > 0 else float(largest == 0),
    )


def picture_psnr(reference: npt.NDArray[Any], result: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the PSNR in dB (N) of pictures (N, 3, H, W), clamped to [-1, 1], not rounded to 8 bits: range 2.

    Equal pictures have 206 dB.
    """
    return np.minimum(psnr(reference.clip(-1, 1), result.clip(-1, 1), 2), _EQUAL_PICTURES)


def row_psnr(reference: npt.NDArray[Any], result: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the PSNR in dB (N) of rows (N, D), against the range of the reference's row.

    Equal rows have 200 dB; a reference without a range has minus infinity against anything else.
    """
    exact = reference.astype(np.float64)
    return np.minimum(psnr(exact, result, exact.max(axis=1) - exact.min(axis=1)), _EQUAL_ROWS)


def first_percentile(values: npt.NDArray[np.float64]) -> float:
    """Return the value below which one in a hundred lies; of fewer than a hundred, the least."""
    return float(np.quantile(values, 0.01, method="lower"))
