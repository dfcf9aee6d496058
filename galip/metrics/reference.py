"""What pictures are judged against: a data set's or a folder's pictures, or statistics from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from galip_runtime.errors import UsageError

from galip.data.crop import RESIZED
from galip.metrics.cache import cache_folder, cached, key_of, store
from galip.metrics.clip_scores import ClipJudge
from galip.metrics.inception import Inception
from galip.metrics.look import Seen, look, total
from galip.metrics.pictures import open_pictures
from galip.metrics.statistics import UNKNOWN_COUNT, Statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Reference"]

_CACHE_VERSION = 2


class Reference:
    """Looked at once: what the networks saw of it is kept on disk."""

    def __init__(
        self,
        path: Path,
        *,
        split: str = "train",
        layout: str = "auto",
        size: int | None = None,
        exclude: Sequence[str] = (),
        captioned: bool = False,
    ) -> None:
        """`path`: an .npz with `mu` and `sigma`, or as for `open_pictures`. Raises as that and as
        `Statistics.load`.
        """
        self.path, self.split = path, split
        self.statistics = Statistics.load(path) if path.suffix.lower() == ".npz" else None
        self.pictures = None
        if self.statistics is None:
            self.pictures = open_pictures(
                path, split=split, layout=layout, size=size, exclude=exclude, captioned=captioned
            )

    @property
    def captions(self) -> Sequence[str]:
        """Of its pictures, where they have some and they were asked for."""
        return self.pictures.captions if self.pictures else []

    def facts(self, count: int | None = None) -> dict[str, Any]:
        """What it is, fit for JSON; `count`: pictures looked at, None: all."""
        if self.statistics:
            known = None if self.statistics.count == UNKNOWN_COUNT else self.statistics.count
            return {"path": str(self.path), "kind": "statistics", "pictures": known}
        if count == 0:
            return {"path": str(self.path), "kind": "captions", "pictures": 0}
        assert self.pictures is not None
        size = self.pictures.size
        return {
            "path": str(self.path),
            "kind": "pictures",
            "split": self.split,
            "pictures": self._count(count),
            "size": f"{size}, {RESIZED}" if size else "as stored",
        }

    def look(
        self,
        count: int | None = None,
        *,
        inception: Inception | None,
        clip: ClipJudge | None = None,
        keep: bool = False,
        batch_size: int = 32,
        fabric: Fabric | None = None,
        use_cache: bool = True,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Seen:
        """What the networks see of its first `count` pictures (None: all), as `look`; statistics as they are.

        `use_cache`: take it from disk where it is kept, and keep it there.
        """
        if self.statistics:
            nothing = np.zeros((0, 0), np.float32)
            return Seen(self.statistics, nothing, nothing)
        assert self.pictures is not None
        count = self._count(count)
        key = key_of(
            schema=_CACHE_VERSION,
            origin=self.pictures.origin,
            path=str(self.path.resolve()),
            size=self.pictures.size,
            count=count,
            inception=(inception.sha256, inception.protocol) if inception else None,
            clip=(clip.sha256(), clip.protocol) if clip else None,
            keep=keep,
        )
        found = cached(cache_folder(), key) if use_cache else None
        if total(found is not None, fabric) == (fabric.world_size if fabric else 1):
            assert found is not None  # by every process; else all look, as looking is shared
            return Seen(found[0], found[1]["features"], found[1]["embeddings"])
        seen = look(
            self.pictures,
            count,
            inception=inception,
            clip=clip,
            keep=keep,
            batch_size=batch_size,
            fabric=fabric,
            progress=lambda done: progress(done, count),
        )
        if use_cache and (fabric is None or fabric.is_global_zero):
            arrays = {"features": seen.features, "embeddings": seen.embeddings}
            store(cache_folder(), key, seen.statistics, arrays)
        return seen

    def refuse(self, metrics: Sequence[str]) -> None:
        """Raises `UsageError` naming `metrics`, which need pictures, where there are statistics alone."""
        if self.statistics and metrics:
            raise UsageError(f"{self.path} has statistics only; {', '.join(metrics)} needs pictures")

    def _count(self, count: int | None) -> int:
        assert self.pictures is not None
        return min(count or len(self.pictures), len(self.pictures))
