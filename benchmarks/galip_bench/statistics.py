"""Statistics of repeated measurements: quantiles, medians and ratios with intervals.

Nothing is trimmed. A quantile is given only where enough samples lie beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MIN_SAMPLES_BEYOND",
    "Ratio",
    "Summary",
    "bootstrap_medians",
    "median",
    "median_interval",
    "process_medians",
    "ratio_of",
    "relative_spread",
    "rerun_interval",
    "student_t",
    "summarise",
]

MIN_SAMPLES_BEYOND = 5
"""Samples that must lie beyond a quantile for it to be given: p99 takes 500 samples."""
RESAMPLES = 2_000

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Statistics of samples in one unit. A quantile with too few samples beyond it is None."""

    count: int
    min: float
    mean: float
    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    median_interval_95: Interval


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios, round by round, of two things measured in the same rounds."""

    median: float
    interval_95: Interval
    """The median's, by bootstrap."""
    rerun_interval_95: Interval | None
    """Where to expect another run's median (`rerun_interval`). None for a single process."""


def summarise(samples: Sequence[float], launches: Sequence[int] = ()) -> Summary:
    """Return the `Summary` of at least one sample. `launches`: as for `median_interval`."""
    values = np.asarray(samples, np.float64)
    quantiles = {
        name: float(np.quantile(values, q)) if len(values) * (1 - q) >= MIN_SAMPLES_BEYOND - 1e-9 else None
        for name, q in (("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
    }
    return Summary(
        count=len(values),
        min=float(values.min()),
        mean=float(values.mean()),
        p50=median(values),
        median_interval_95=median_interval(values, launches),
        **quantiles,
    )


def median(values: ArrayLike) -> float:
    """Return the median of at least one value."""
    return float(np.median(np.asarray(values, np.float64)))


def ratio_of(samples: Sequence[float], reference: Sequence[float], launches: Sequence[int] = ()) -> Ratio:
    """Return the ratio of `samples` to `reference`, round by round: what slows a whole round cancels."""
    ratios = np.asarray(samples, np.float64) / np.asarray(reference, np.float64)
    return Ratio(median(ratios), median_interval(ratios, launches), rerun_interval(ratios, launches))


def median_interval(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> Interval:
    """Return the 95 % interval of the values' median, by bootstrap (`bootstrap_medians`)."""
    low, high = np.quantile(bootstrap_medians(values, launches, seed), (0.025, 0.975))
    return float(low), float(high)


def bootstrap_medians(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> Floats:
    """Return medians (`RESAMPLES`) of values resampled with replacement.

    `launches`: how many of the values, in order, each process measured. Processes are resampled, too.
    """
    sample, sizes = np.asarray(values, np.float64), np.asarray(launches or (np.size(values),))
    starts = _starts(sample, sizes)
    rng = np.random.default_rng(seed)
    processes = rng.integers(len(sizes), size=(RESAMPLES, len(sizes), 1))
    offsets = rng.random((RESAMPLES, len(sizes), int(sizes.max()))) * sizes[processes]
    picks = sample[starts[processes] + offsets.astype(np.int64)]
    return np.asarray(np.median(picks.reshape(RESAMPLES, -1), axis=1))


def rerun_interval(values: ArrayLike, launches: Sequence[int]) -> Interval | None:
    """Return where another run of as many processes has its median, 95 times of 100; None for one process.

    Student's t of the L processes' medians, in logarithms: the two runs' means differ by √(2 / L) standard
    deviations of a process. Bootstrap says too little about a few processes that differ among themselves.
    """
    if len(launches) < 2:
        return None
    medians = process_medians(values, launches)
    reach = student_t(len(medians) - 1) * float(np.std(medians, ddof=1)) * (2 / len(medians)) ** 0.5
    middle = median(values)
    return middle * float(np.exp(-reach)), middle * float(np.exp(reach))


def process_medians(values: ArrayLike, launches: Sequence[int]) -> Floats:
    """Return the logarithm of the median of each process's values (L)."""
    sample = np.asarray(values, np.float64)
    starts = _starts(sample, np.asarray(launches))
    return np.log([np.median(part) for part in np.split(sample, starts[1:])])


def student_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t for `freedom` degrees of freedom; from ten on, ten's."""
    assert freedom >= 1, freedom
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return quantiles[min(freedom, len(quantiles)) - 1]


def relative_spread(samples: Sequence[float]) -> float:
    """Return the distance of the quartiles over the median: how much rounds vary."""
    low, middle, high = np.quantile(np.asarray(samples, np.float64), (0.25, 0.5, 0.75))
    return float((high - low) / middle)


def _starts(sample: Floats, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index in the sample at which each process begins."""
    assert sizes.sum() == len(sample), (sizes, len(sample))
    return np.asarray(np.cumsum(sizes) - sizes)
