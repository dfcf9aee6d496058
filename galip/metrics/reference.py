"""The reference of an evaluation: a data set's or a folder's pictures, or statistics from a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galip.data.crop import RESIZED
from galip.metrics.clip_encoder import ClipEncoder
from galip.metrics.feature_cache import cache_key, feature_cache, load_features, store_features
from galip.metrics.features import Extract, PictureFeatures, all_reduce_sum, extract_features
from galip.metrics.inception import Inception
from galip.metrics.pictures import check_broken, open_pictures
from galip.metrics.statistics import UNKNOWN_COUNT, Statistics
from galip.progress import Count

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Reference"]

_CACHE_VERSION = 2


class Reference:
    """Pictures, or statistics alone. Features are extracted once and kept on disk."""

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
        """Open `path`: an .npz with `mu` and `sigma`, or as `open_pictures`. Raises as that and as
        `Statistics.load`.
        """
        self.path, self.split = path, split
        self.statistics = Statistics.load(path) if path.suffix.lower() == ".npz" else None
        self.pictures = None
        if self.statistics is None:
            self.pictures = open_pictures(
                path,
                split=split,
                layout=layout,
                size=size,
                exclude=exclude,
                captioned=captioned,
                skip_broken=True,
            )

    @property
    def captions(self) -> Sequence[str]:
        """The pictures' captions, if they have some and were opened as `captioned`."""
        return self.pictures.captions if self.pictures else []

    def facts(self, count: int | None = None) -> dict[str, Any]:
        """Return what it is, fit for JSON. `count`: pictures used; None: all."""
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

    def extract_features(
        self,
        count: int | None = None,
        *,
        inception: Inception | None,
        clip: ClipEncoder | None = None,
        keep: bool = False,
        batch_size: int = 32,
        fabric: Fabric | None = None,
        extract: Extract | None = None,
        use_cache: bool = True,
        progress: Count = lambda done, total: None,
    ) -> PictureFeatures:
        """Extract features of the first `count` pictures (None: all), or return the statistics from the file.

        Broken pictures are left out. Raises `QualityGateFailed` if they are more than training allows.
        `use_cache`: load them from disk if they are there, and store them there. `extract`: what extracts
        them; None: this process, with those of `fabric`.
        """
        if self.statistics:
            return PictureFeatures.empty(self.statistics)
        assert self.pictures is not None
        count = self._count(count)
        key = cache_key(
            schema=_CACHE_VERSION,
            origin=self.pictures.origin,
            path=str(self.path.resolve()),
            size=self.pictures.size,
            count=count,
            inception=(inception.sha256, inception.protocol) if inception else None,
            clip=(clip.sha256(), clip.protocol) if clip else None,
            keep=keep,
        )
        features = load_features(feature_cache(), key) if use_cache else None
        if all_reduce_sum(features is not None, fabric) == (fabric.world_size if fabric else 1):
            assert features is not None  # in every process; otherwise all extract, as the work is shared
            self._check_broken(features, count)
            return features
        features = (extract or partial(extract_features, fabric=fabric))(
            self.pictures,
            count,
            inception=inception,
            clip=clip,
            keep=keep,
            batch_size=batch_size,
            progress=lambda done: progress(done, count),
        )
        self._check_broken(features, count)
        if use_cache and (fabric is None or fabric.is_global_zero):
            store_features(feature_cache(), key, features)
        return features

    def _check_broken(self, features: PictureFeatures, count: int) -> None:
        assert self.pictures is not None
        without = self.pictures.without_caption
        check_broken(self.path, len(features.dropped) + without, count + without, self.pictures.examples)

    def _count(self, count: int | None) -> int:
        assert self.pictures is not None
        return min(count or len(self.pictures), len(self.pictures))
