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
    "median_interval",
    "ratio_of",
    "spread",
    "summarise",
]

LEAST_BEYOND = 5
"""Samples that must lie beyond a quantile for it to be given: p99 takes 500 of them."""
RESAMPLES = 2_000

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
    return Ratio(float(np.median(ratios)), median_interval(ratios, launches))


def median_interval(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> Interval:
    """In which 95 % of other runs have their median: bootstrap's interval of this one (`bootstrap_medians`),
    √2 times as wide, since the other run varies as much.
    """
    middle = np.median(np.asarray(values, np.float64))
    low, high = np.quantile(bootstrap_medians(values, launches, seed), (0.025, 0.975))
    return float(middle - 2**0.5 * (middle - low)), float(middle + 2**0.5 * (high - middle))


def bootstrap_medians(values: ArrayLike, launches: Sequence[int] = (), seed: int = 0) -> NDArray[np.float64]:
    """Medians (`RESAMPLES`) of values drawn again.

    `launches`: how many of the values, in order, each process measured; processes are drawn, too, as another
    run's would be others. Drawing L of L processes varies less than these do, by √((L - 1) / L), so medians
    are spread by the inverse.
    """
    sample, sizes = np.asarray(values, np.float64), np.asarray(launches or (np.size(values),))
    assert sizes.sum() == len(sample), (sizes, len(sample))
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sizes), size=(RESAMPLES, len(sizes), 1))
    places = rng.random((RESAMPLES, len(sizes), int(sizes.max()))) * sizes[drawn]
    picks = sample[starts[drawn] + places.astype(np.int64)]
    medians = np.median(picks.reshape(RESAMPLES, -1), axis=1)
    if (count := len(sizes)) == 1:
        return np.asarray(medians)
    middle = np.median(sample)
    return np.asarray(middle + (medians - middle) * (count / (count - 1)) ** 0.5)


def spread(samples: Sequence[float]) -> float:
    """Distance of the quartiles over the median: how much a measurement varies from round to round."""
    low, middle, high = np.quantile(np.asarray(samples, np.float64), (0.25, 0.5, 0.75))
    return float((high - low) / middle)
