"""Features of pictures by the networks: each process extracts those of its share, and all get the whole.

Shapes: N pictures, F features of Inception, D numbers in a CLIP embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from galip.metrics.clip_encoder import ClipEncoder
from galip.metrics.inception import Inception
from galip.metrics.pictures import Pictures, batches
from galip.metrics.statistics import Statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["MAX_FEATURES_KEPT", "PictureFeatures", "all_reduce_sum", "extract_features"]

MAX_FEATURES_KEPT = 50_000
"""Pictures whose features are kept at most, for the metrics that need them all."""


@dataclass
class PictureFeatures:
    """Features of one set of pictures, in the order of their numbers."""

    statistics: Statistics
    """Mean and covariance of the features."""
    features: NDArray[np.float32]
    """(N, F), or (0, F) if they were not to be kept."""
    embeddings: NDArray[np.float32]
    """(N, D) of unit length, or (0, 0) without CLIP."""
    dropped: tuple[int, ...] = ()
    """Numbers of pictures that were left out, in order; the others have the rows above."""

    def kept(self, values: Sequence[str]) -> list[str]:
        """Return those of a value for each picture whose picture was not left out."""
        dropped = set(self.dropped)
        return [value for index, value in enumerate(values) if index not in dropped]

    @classmethod
    def empty(cls, statistics: Statistics | None = None) -> PictureFeatures:
        """Return features of no pictures, or the statistics alone."""
        nothing = np.zeros((0, 0), np.float32)
        return cls(statistics or Statistics(0), nothing, nothing)


def extract_features(
    pictures: Pictures,
    count: int,
    *,
    inception: Inception | None,
    clip: ClipEncoder | None,
    keep: bool = False,
    batch_size: int = 32,
    fabric: Fabric | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> PictureFeatures:
    """Extract features of the first `count` pictures, `batch_size` at a time.

    `keep`: keep the features themselves, not only their statistics. With a launched `fabric` every process
    calls this and works on its share.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    width = inception.width if inception else 0
    statistics = Statistics(width)
    kept = [np.zeros((0, width), np.float32)]
    embeddings: list[NDArray[np.float32]] = []
    order: list[int] = []
    for indices, batch in batches(pictures, count, batch_size, rank, world):
        if len(batch) == 0:
            continue
        order += indices
        if inception:
            features = inception(batch)
            statistics.update(features)
            if keep and len(order) * world <= MAX_FEATURES_KEPT:
                kept.append(features)
        if clip:
            embeddings.append(clip.embed_pictures(batch))
        progress(min(len(order) * world, count))
    joined = np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)
    dropped = tuple(sorted(index for index in pictures.dropped if index < count))
    own = PictureFeatures(statistics, np.concatenate(kept), joined, dropped)
    return own if world == 1 else _gather(own, order, world)


def all_reduce_sum(number: int, fabric: Fabric | None) -> int:
    """Return the sum of `number` over all processes."""
    if fabric is None or fabric.world_size == 1:
        return number
    numbers: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(numbers, number)
    return sum(numbers)


def _gather(own: PictureFeatures, order: list[int], world: int) -> PictureFeatures:
    """Gather all processes' features in the order of the pictures' numbers; `order` has this process's."""
    gathered: list[Any] = [None] * world
    torch.distributed.all_gather_object(gathered, (order, own))
    sorting = np.argsort(np.concatenate([order for order, _ in gathered]))
    parts = [part for _, part in gathered]
    statistics = Statistics(len(own.statistics.mean))
    for part in parts:
        statistics.merge(part.statistics)
    columns = []
    for arrays in ([part.features for part in parts], [part.embeddings for part in parts]):
        joined = np.concatenate([array for array in arrays if len(array)] or arrays[:1])
        columns.append(joined[sorting] if len(joined) == len(sorting) else joined)
    dropped = sorted(index for part in parts for index in part.dropped)
    return PictureFeatures(statistics, columns[0], columns[1], tuple(dropped))
