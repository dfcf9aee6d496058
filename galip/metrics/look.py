"""What the networks see of pictures: each process looks at its share, and all get the whole.

Shapes: N pictures, F features of Inception, D numbers in a CLIP embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from galip.metrics.clip_scores import ClipJudge
from galip.metrics.inception import Inception
from galip.metrics.pictures import Pictures, batches
from galip.metrics.statistics import Statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Seen", "look", "total"]

KEPT = 50_000
"""Features that are kept at most, for the metrics that need them all."""


@dataclass
class Seen:
    """Of one set of pictures, in the order of their numbers."""

    statistics: Statistics
    features: NDArray[np.float32]
    """(N, F), or (0, F) where they were not to be kept."""
    embeddings: NDArray[np.float32]
    """(N, D) of unit length, or (0, 0) without CLIP."""


def look(
    pictures: Pictures,
    count: int,
    *,
    inception: Inception | None,
    clip: ClipJudge | None,
    keep: bool = False,
    batch_size: int = 32,
    fabric: Fabric | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """Show the first `count` pictures to the networks, `batch_size` at a time.

    `keep`: the features themselves, too. With a launched `fabric` every process calls this and shows its
    share.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    width = inception.width if inception else 0
    statistics = Statistics(width)
    features = [np.zeros((0, width), np.float32)]
    embeddings: list[NDArray[np.float32]] = []
    order: list[int] = []
    for indices, batch in batches(pictures, count, batch_size, rank, world):
        if len(batch) == 0:
            continue
        order += indices
        if inception:
            seen = inception(batch)
            statistics.update(seen)
            if keep and len(order) * world <= KEPT:
                features.append(seen)
        if clip:
            embeddings.append(clip.of_pictures(batch))
        progress(min(len(order) * world, count))
    joined = np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)
    mine = Seen(statistics, np.concatenate(features), joined)
    return mine if world == 1 else _gathered(mine, order, world)


def total(number: int, fabric: Fabric | None) -> int:
    """The sum of `number` over all processes."""
    if fabric is None or fabric.world_size == 1:
        return number
    everyone: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, number)
    return sum(everyone)


def _gathered(mine: Seen, order: list[int], world: int) -> Seen:
    """All processes' pictures in the order of their numbers; `order` has those of this one's."""
    everyone: list[Any] = [None] * world
    torch.distributed.all_gather_object(everyone, (order, mine))
    sorting = np.argsort(np.concatenate([order for order, _ in everyone]))
    parts = [part for _, part in everyone]
    whole = Statistics(len(mine.statistics.mean))
    for part in parts:
        whole.merge(part.statistics)
    columns = []
    for rows in ([part.features for part in parts], [part.embeddings for part in parts]):
        joined = np.concatenate([each for each in rows if len(each)] or rows[:1])
        columns.append(joined[sorting] if len(joined) == len(sorting) else joined)
    return Seen(whole, *columns)
