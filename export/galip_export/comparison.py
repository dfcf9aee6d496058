"""Comparison of two results: every figure in one call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from galip_runtime.errors import QualityGateFailed

__all__ = ["Comparison", "compare", "first_percentile", "picture_psnr", "row_psnr"]


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
    largest, std, mse = float(error.max()), float(a.std()), float(np.mean(error**2))
    peak = float(a.max() - a.min())
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Comparison(
        max_abs=largest,
        mean_abs=float(error.mean()),
        std=std,
        relative=0.0 if largest == 0 else largest / std if std > 0 else math.inf,
        psnr_db=None if mse == 0 else -math.inf if peak == 0 else 10 * math.log10(peak**2 / mse),
        cosine=float(a @ b) / lengths if lengths > 0 else float(largest == 0),
    )


def picture_psnr(reference: npt.NDArray[Any], result: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the PSNR in dB (N) of pictures (N, 3, H, W), clamped to [-1, 1], not rounded to 8 bits: range 2.

    Equal pictures have 206 dB.
    """
    error = np.square(result.clip(-1, 1).astype(np.float64) - reference.clip(-1, 1)).mean(axis=(1, 2, 3))
    return np.asarray(10 * np.log10(4 / np.maximum(error, 1e-20)))


def row_psnr(reference: npt.NDArray[Any], result: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the PSNR in dB (N) of rows (N, D), against the range of the reference's row.

    Equal rows have 200 dB; a reference without a range has minus infinity against anything else.
    """
    exact = reference.astype(np.float64)
    error = np.square(result.astype(np.float64) - exact).mean(axis=1)
    peak = np.square(exact.max(axis=1) - exact.min(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 200.0, 10 * np.log10(peak / np.maximum(error, 1e-20 * peak)))


def first_percentile(values: npt.NDArray[np.float64]) -> float:
    """Return the value below which one in a hundred lies; of fewer than a hundred, the least."""
    return float(np.quantile(values, 0.01, method="lower"))
