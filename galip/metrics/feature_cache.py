"""Features of references, kept on disk: the same pictures, preprocessed the same, are processed once."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.cache import open_cached, optional_cache, write_cached

from galip.metrics.features import PictureFeatures
from galip.metrics.statistics import Statistics

__all__ = ["cache_key", "feature_cache", "load_features", "store_features"]


def feature_cache() -> Path | None:
    """Return the folder `features` in galip's cache; None if there is no cache to trust."""
    return optional_cache("features")


def cache_key(**facts: Any) -> str:
    """Return a name for the facts that decide the features."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def load_features(folder: Path | None, key: str) -> PictureFeatures | None:
    """Load what is stored under `key`; None if there is nothing or the file is damaged."""
    file = folder and open_cached(_path(folder, key))
    if not file:
        return None
    with file:
        data = file.read()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        statistics = Statistics(len(arrays["mean"]))
        statistics.count = int(arrays["count"])
        statistics.mean, statistics.scatter = arrays["mean"], arrays["scatter"]
        dropped = tuple(int(index) for index in arrays["dropped"])
        return PictureFeatures(statistics, arrays["features"], arrays["embeddings"], dropped)
    except (KeyError, TypeError, ValueError):  # it is whole, but of another version of galip
        return None


def store_features(folder: Path | None, key: str, features: PictureFeatures) -> None:
    """Store features under `key`, whole or not at all; a failure is logged."""
    if folder is None:
        return
    data = io.BytesIO()
    np.savez(
        data,
        count=np.array(features.statistics.count),
        mean=features.statistics.mean,
        scatter=features.statistics.scatter,
        features=features.features,
        embeddings=features.embeddings,
        dropped=np.array(features.dropped, np.int64),
    )
    write_cached(_path(folder, key), data.getbuffer())


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.kept"
