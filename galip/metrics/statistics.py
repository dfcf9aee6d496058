"""Mean and covariance of features that come in batches, in float64, without keeping them.

Shapes: N features at a time, F numbers each.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from galip_runtime.errors import FileRefused, UsageError
from numpy.typing import NDArray

__all__ = ["Statistics"]

Floats = NDArray[np.float64]


class Statistics:
    """Count, mean (F) and covariance (F, F) of all features seen; parts of them can be merged."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(width)
        self.scatter: Floats = np.zeros((width, width))  # sum of the outer products of deviations
        self._root: tuple[int, Floats] = (0, self.scatter)  # of so many

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Statistics:
        """Of features (N, F) at once."""
        statistics = cls(features.shape[1])
        statistics.update(features)
        return statistics

    def update(self, features: NDArray[np.floating]) -> None:
        """Take in features (N, F)."""
        rows = features.astype(np.float64)
        if len(rows) == 0:
            return
        part = Statistics(rows.shape[1])
        part.count, part.mean = len(rows), rows.mean(axis=0)
        deviations = rows - part.mean
        part.scatter = deviations.T @ deviations
        self.merge(part)

    def merge(self, other: Statistics) -> None:
        """Take in what `other` has seen (Chan et al. 1983: no difference of large sums)."""
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
        """Unbiased, as numpy's `cov`. Raises `UsageError` for fewer than two features."""
        if self.count < 2:
            raise UsageError(f"{self.count} pictures have no covariance; give at least 2")
        return self.scatter / (self.count - 1)

    def root(self) -> Floats:
        """The covariance's square root, kept until features are added. Raises as `covariance`."""
        if self._root[0] != self.count or self.count == 0:
            variances, directions = np.linalg.eigh(self.covariance)
            self._root = (self.count, (directions * np.sqrt(np.maximum(variances, 0))) @ directions.T)
        return self._root[1]

    def save(self, path: Path) -> None:
        """Write `mu`, `sigma` and `count` as .npz, which pytorch-fid and DF-GAN read; whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, mu=self.mean, sigma=self.covariance, count=self.count)
            os.replace(temporary, path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; name another file") from error
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read `mu` (F) and `sigma` (F, F) from .npz; without `count` it is taken as very large.

        Raises `FileRefused` for a file that has something else in it, and never unpickles.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = file["mu"].astype(np.float64), file["sigma"].astype(np.float64)
                count = int(file["count"]) if "count" in file.files else 10**9
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise FileRefused(
                f"{path} has no FID statistics ({error}); give an .npz with `mu` (F) and `sigma` (F, F)"
            ) from error
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise FileRefused(
                f"{path} has mu of shape {mean.shape} and sigma of shape {covariance.shape}; (F) and (F, F) "
                "are right"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all() and count > 1):
            raise FileRefused(f"{path} has numbers that are not finite, or a count below 2; make it again")
        statistics = cls(len(mean))
        statistics.count, statistics.mean, statistics.scatter = count, mean, covariance * (count - 1)
        return statistics
