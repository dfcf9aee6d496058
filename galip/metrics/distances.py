"""Distances between two sets of features: FID, KID, precision and recall.

Shapes: N and M features, F numbers each.
"""

from __future__ import annotations

import numpy as np
from galip_runtime.errors import UsageError
from numpy.typing import NDArray

from galip.metrics.statistics import Statistics

__all__ = ["frechet_distance", "kernel_distance", "precision_recall"]

Features = NDArray[np.floating]


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁S₂)^½): FID if the features are Inception's (Heusel et al. 2017).

    The trace of (S₁S₂)^½ is the sum of the singular values of S₁^½ S₂^½. So there are no complex roots, and
    nothing is added to covariances of few pictures. Raises `UsageError` for features of different widths or
    fewer than two.
    """
    if len(a.mean) != len(b.mean):
        raise UsageError(f"features of {len(a.mean)} and {len(b.mean)} numbers can't be compared")
    shared = np.linalg.svd(a.root() @ b.root(), compute_uv=False).sum()
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared)


def kernel_distance(
    a: Features, b: Features, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return KID (Bińkowski et al. 2018) of features (N, F) and (M, F): mean and standard deviation over
    subsets.

    Unbiased squared MMD with the kernel (x·y / F + 1)³, on `subsets` pairs of `size` features, or as many as
    there are, sampled by `seed`. Raises `UsageError` for fewer than two features.
    """
    size = min(size, len(a), len(b))
    if size < 2:
        raise UsageError(f"KID needs at least 2 pictures on either side, not {len(a)} and {len(b)}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x = a[rng.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[rng.choice(len(b), size, replace=False)].astype(np.float64)
        xx, yy, xy = ((p @ q.T / p.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
        values.append(within - 2 * xy.mean())
    return float(np.mean(values)), float(np.std(values))


def precision_recall(real: Features, fake: Features, k: int = 3, block: int = 1024) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019) of features (N, F) and (M, F).

    Precision: the share of `fake` within the `k`-th neighbour's distance of some real one; recall: the other
    way round. The paper's features are VGG's, so its figures can't be compared with Inception's. Computed in
    blocks of rows. Raises `UsageError` for `k` features or fewer.
    """
    if min(len(real), len(fake)) <= k:
        raise UsageError(f"precision and recall need more than {k} pictures on either side")
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    precision = _share_within(fake, real, _radii(real, k, block), block)
    return precision, _share_within(real, fake, _radii(fake, k, block), block)


def _squared_distances(a: Features, b: Features) -> Features:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def _radii(features: Features, k: int, block: int) -> Features:
    """Return the squared distance (N) of each feature to its k-th neighbour."""
    parts = []
    for first in range(0, len(features), block):
        distances = _squared_distances(features[first : first + block], features)
        rows = np.arange(len(distances))
        distances[rows, first + rows] = -1.0  # itself comes first
        parts.append(np.partition(distances, k, axis=1)[:, k])
    return np.concatenate(parts)


def _share_within(features: Features, others: Features, radii: Features, block: int) -> float:
    """Return the share of `features` that lie within the radius of any of `others`."""
    blocks = range(0, len(features), block)
    return float(
        np.concatenate(
            [(_squared_distances(features[i : i + block], others) <= radii).any(axis=1) for i in blocks]
        ).mean()
    )
