"""What repeated measurements say: quantiles with samples enough, medians and ratios with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LEAST_BEYOND",
    "Ratio",
    "Summary",
    "bootstrap_medians",
    "launch_medians",
    "median_interval",
    "ratio_of",
    "rerun_interval",
    "spread",
    "student_t",
    "summarise",
]

LEAST_BEYOND = 5
"""Samples that must lie beyond a quantile for it to be given: p99 takes 500 of them."""
RESAMPLES = 2_000

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Of samples in one unit. A quantile with too few samples beyond it is None; nothing is trimmed."""

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
    """Of two things measured in the same rounds: the median of the rounds' ratios."""

    median: float
    interval_95: Interval
    """The median's, by bootstrap."""
    rerun_interval_95: Interval | None
    """Where another run's median is to be expected (`rerun_interval`); None of a single launch."""


def summarise(samples: Sequence[float], launches: Sequence[int] = ()) -> Summary:
    """The samples' `Summary`; there must be one at least. `launches`: as for `median_interval`."""
    values = np.asarray(samples, np.float64)
    quantiles = {
        name: float(np.quantile(values, q)) if len(values) * (1 - q) >= LEAST_BEYOND - 1e-9 else None
        for name, q in (("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
    }
    return Summary(
        count=len(values),
        min=float(values.min()),
        mean=float(values.mean()),
        p50=float(np.median(values)),
        median_interval_95=median_interval(values, launches),
        **quantiles,
    )


def ratio_of(samples: Sequence[float], reference: Sequence[float], launches: Sequence[int] = ()) -> Ratio:
    """`samples` over `reference`, round by round: what slows a whole round cancels out."""
    ratios = np.asarray(samples, np.float64) / np.asarray(reference, np.float64)
    return Ratio(
        float(np.median(ratios)), median_interval(ratios, launches), rerun_interval(ratios, launches)
    )


def median_interval(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> Interval:
    """The 95 % interval of the values' median, by bootstrap (`bootstrap_medians`)."""
    low, high = np.quantile(bootstrap_medians(values, launches, seed), (0.025, 0.975))
    return float(low), float(high)


def bootstrap_medians(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> Floats:
    """Medians (`RESAMPLES`) of values drawn again.

    `launches`: how many of the values, in order, each process measured; processes are drawn, too.
    """
    sample, sizes = np.asarray(values, np.float64), np.asarray(launches or (np.size(values),))
    starts = _starts(sample, sizes)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sizes), size=(RESAMPLES, len(sizes), 1))
    places = rng.random((RESAMPLES, len(sizes), int(sizes.max()))) * sizes[drawn]
    picks = sample[starts[drawn] + places.astype(np.int64)]
    return np.asarray(np.median(picks.reshape(RESAMPLES, -1), axis=1))


def rerun_interval(values: ArrayLike, launches: Sequence[int]) -> Interval | None:
    """Where another run with as many launches has its median, 95 times of 100; None for a single launch.

    Student's t of the L launches' medians, in logarithms: the two runs' means differ by √(2 / L) standard
    deviations of a launch. Bootstrap says too little of a few launches that differ among themselves.
    """
    if len(launches) < 2:
        return None
    medians = launch_medians(values, launches)
    reach = student_t(len(medians) - 1) * float(np.std(medians, ddof=1)) * (2 / len(medians)) ** 0.5
    middle = float(np.median(np.asarray(values)))
    return middle * float(np.exp(-reach)), middle * float(np.exp(reach))


def launch_medians(values: ArrayLike, launches: Sequence[int]) -> Floats:
    """The logarithm of each launch's median (L)."""
    sample = np.asarray(values, np.float64)
    starts = _starts(sample, np.asarray(launches))
    return np.log([np.median(part) for part in np.split(sample, starts[1:])])


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` degrees of freedom; of more than ten, ten's."""
    assert freedom >= 1, freedom
    quantiles = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return quantiles[min(freedom, len(quantiles)) - 1]


def spread(samples: Sequence[float]) -> float:
    """Distance of the quartiles over the median: how much a measurement varies from round to round."""
    low, middle, high = np.quantile(np.asarray(samples, np.float64), (0.25, 0.5, 0.75))
    return float((high - low) / middle)


def _starts(sample: Floats, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the sample each launch begins."""
    assert sizes.sum() == len(sample), (sizes, len(sample))
    return np.asarray(np.cumsum(sizes) - sizes)
