"""Features of pictures by the networks: each process extracts those of its share, and all get the whole.

Shapes: N pictures, F features of Inception, D numbers in a CLIP embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from galip.metrics.clip_encoder import ClipEncoder
from galip.metrics.inception import Inception
from galip.metrics.pictures import Pictures, batches
from galip.metrics.statistics import Statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "MAX_FEATURES_KEPT",
    "Extract",
    "PictureFeatures",
    "all_reduce_sum",
    "extract_features",
    "extract_share",
]

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
    def joined(cls, parts: Iterable[PictureFeatures]) -> PictureFeatures:
        """Join the features of at least one part of a set, in the order given."""
        statistics: Statistics | None = None
        features: list[NDArray[np.float32]] = []
        embeddings: list[NDArray[np.float32]] = []
        dropped: list[int] = []
        for part in parts:
            statistics = statistics or Statistics(len(part.statistics.mean))
            statistics.merge(part.statistics)
            features.append(part.features)
            embeddings.append(part.embeddings)
            dropped += part.dropped
        return cls(statistics or Statistics(0), _rows(features), _rows(embeddings), tuple(sorted(dropped)))

    @classmethod
    def empty(cls, statistics: Statistics | None = None) -> PictureFeatures:
        """Return features of no pictures, or the statistics alone."""
        nothing = np.zeros((0, 0), np.float32)
        return cls(statistics or Statistics(0), nothing, nothing)


class Extract(Protocol):
    """Extracts features of the first `count` pictures, as `extract_features` does."""

    def __call__(
        self,
        pictures: Pictures,
        count: int,
        *,
        inception: Inception | None,
        clip: ClipEncoder | None,
        keep: bool = False,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda done: None,
    ) -> PictureFeatures:
        """Return their features."""
        ...


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
    order, own = extract_share(
        pictures,
        range(rank, min(count, len(pictures)), world),
        inception=inception,
        clip=clip,
        most_kept=MAX_FEATURES_KEPT // world if keep else 0,
        batch_size=batch_size,
        progress=lambda done: progress(min(done * world, count)),
    )
    return own if world == 1 else _gather(own, order, world)


def extract_share(
    pictures: Pictures,
    share: range,
    *,
    inception: Inception | None,
    clip: ClipEncoder | None,
    most_kept: int,
    batch_size: int,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[list[int], PictureFeatures]:
    """Extract features of the pictures whose numbers are in `share`, in this process. Return the numbers of
    those that were not left out, too.

    The features themselves are kept of whole batches of the first `most_kept` pictures.
    """
    width = inception.width if inception else 0
    statistics = Statistics(width)
    kept = [np.zeros((0, width), np.float32)]
    embeddings: list[NDArray[np.float32]] = []
    order: list[int] = []
    for indices, batch in batches(pictures, share, batch_size):
        if len(batch) == 0:
            continue
        order += indices
        if inception:
            features = inception(batch)
            statistics.update(features)
            if len(order) <= most_kept:
                kept.append(features)
        if clip:
            embeddings.append(clip.embed_pictures(batch))
        progress(len(order))
    joined = np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)
    dropped = tuple(sorted(index for index in pictures.dropped if index in share))
    return order, PictureFeatures(statistics, np.concatenate(kept), joined, dropped)


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
    whole = PictureFeatures.joined(part for _, part in gathered)
    for name in ("features", "embeddings"):
        rows = getattr(whole, name)
        if len(rows) == len(sorting):  # all are kept
            setattr(whole, name, rows[sorting])
    return whole


def _rows(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join arrays of rows; those without rows may have another width."""
    return np.concatenate([array for array in arrays if len(array)] or arrays[:1])
