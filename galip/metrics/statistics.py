"""Mean and covariance of features that come in batches, in float64, without storing the features.

Shapes: N features at a time, F numbers each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import staged_file
from numpy.typing import NDArray

from galip.metrics.npz import read_npz

__all__ = ["UNKNOWN_COUNT", "Statistics"]

UNKNOWN_COUNT = 10**9
"""Count of statistics from a file that has none."""
MAX_COUNT = 10**12
MAX_NUMBER = 1e100
MAX_FEATURES = 4096
_ROUNDING = 1e-3
"""How negative a variance may be, or how much two halves of a covariance may differ, by rounding, as a share
of the largest variance: some files hold float32.
"""

Floats = NDArray[np.float64]


class Statistics:
    """Count, mean (F) and covariance (F, F) of all features added; statistics of parts can be merged."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(width)
        self.scatter: Floats = np.zeros((width, width))  # sum of the outer products of deviations
        self._root: tuple[int, Floats] = (0, self.scatter)  # of that count

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Statistics:
        """Return the statistics of features (N, F)."""
        statistics = cls(features.shape[1])
        statistics.update(features)
        return statistics

    def update(self, features: NDArray[np.floating]) -> None:
        """Add features (N, F)."""
        rows = features.astype(np.float64)
        if len(rows) == 0:
            return
        part = Statistics(rows.shape[1])
        part.count, part.mean = len(rows), rows.mean(axis=0)
        deviations = rows - part.mean
        part.scatter = deviations.T @ deviations
        self.merge(part)

    def merge(self, other: Statistics) -> None:
        """Add the features of `other` (Chan et al. 1983: no difference of large sums)."""
        if other.count == 0:
            return
        count = self.count + other.count
        between = other.mean - self.mean
        self.scatter = (
            self.scatter + other.scatter + np.outer(between, between) * (self.count * other.count / count)
        )
        self.mean = self.mean + between * (other.count / count)
        self.count = count

    @property
    def covariance(self) -> Floats:
        """The unbiased covariance, as numpy's `cov`. Raises `UsageError` for fewer than two features."""
        if self.count < 2:
            raise UsageError(f"{self.count} pictures have no covariance; give at least 2")
        return self.scatter / (self.count - 1)

    def root(self) -> Floats:
        """Return the covariance's square root, cached until features are added. Raises as `covariance`."""
        if self._root[0] != self.count or self.count == 0:
            variances, directions = np.linalg.eigh(self.covariance)
            self._root = (self.count, (directions * np.sqrt(np.maximum(variances, 0))) @ directions.T)
        return self._root[1]

    def save(self, path: Path) -> None:
        """Write `mu`, `sigma` and `count` as .npz, which pytorch-fid and DF-GAN read; whole or not at all."""
        with staged_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=self.mean, sigma=self.covariance, count=self.count)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read `mu` (F) and `sigma` (F, F) from .npz; without `count` it counts as very large.

        Raises `FileRefused` for a file with anything else in it, and never unpickles.
        """
        try:
            arrays = read_npz(path, ("mu", "sigma", "count"), MAX_FEATURES**2)
            mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
            count = _to_int(arrays["count"]) if "count" in arrays else UNKNOWN_COUNT
        except (ValueError, KeyError) as error:
            raise FileRefused(
                f"{path} has no FID statistics ({error}); give an .npz with `mu` (F) and `sigma` (F, F)"
            ) from error
        if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
            raise FileRefused(
                f"{path} has mu of shape {mean.shape} and sigma of shape {covariance.shape}; (F) and (F, F) "
                f"are right, F at most {MAX_FEATURES}"
            )
        sane = all((np.abs(numbers) < MAX_NUMBER).all() for numbers in (mean, covariance))  # not NaN either
        if not (sane and 1 < count <= MAX_COUNT):
            raise FileRefused(
                f"{path} has numbers that are not finite or too large, or a count of {count}; make it again, "
                "of at least two pictures"
            )
        _check_covariance(path, covariance)
        statistics = cls(len(mean))
        statistics.count, statistics.mean, statistics.scatter = count, mean, covariance * (count - 1)
        return statistics


def _to_int(value: NDArray[Any]) -> int:
    """Return the one whole number that an array holds. Raises ValueError for anything else."""
    if value.size != 1 or not np.isfinite(value).all() or value.item() != int(value.item()):
        raise ValueError(f"its count is {value!r:.80}")
    return int(value.item())


def _check_covariance(path: Path, covariance: Floats) -> None:
    """Raise `FileRefused` unless it is symmetric and no direction has a negative variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = _ROUNDING * np.abs(np.diagonal(covariance)).max()
        symmetric = (np.abs(covariance - covariance.T) <= allowed).all()
        if symmetric:
            try:
                least = np.linalg.eigvalsh(covariance)[0]
            except np.linalg.LinAlgError:
                least = np.nan
            if least >= -allowed:
                return
    raise FileRefused(
        f"{path} has a sigma that is not a covariance: it must be symmetric without negative variances; make "
        "the file again"
    )
