"""Features of references, kept on disk: the same pictures, seen the same way, needn't be looked at twice."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.cache import open_cached, optional_cache, write_cached

from galip.metrics.statistics import Statistics

__all__ = ["cache_folder", "cached", "key_of", "store"]

Found = tuple[Statistics, dict[str, np.ndarray]]


def cache_folder() -> Path | None:
    """`features` in galip's cache; None where there is no cache to trust."""
    return optional_cache("features")


def key_of(**what: Any) -> str:
    """A name for whatever decides the features."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:32]


def cached(folder: Path | None, key: str) -> Found | None:
    """Statistics and arrays stored under `key`; None where there are none or the file is damaged."""
    file = folder and open_cached(_path(folder, key))
    if not file:
        return None
    with file:
        data = file.read()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        statistics = Statistics(len(arrays["mean"]))
        statistics.count = int(arrays.pop("count"))
        statistics.mean, statistics.scatter = arrays.pop("mean"), arrays.pop("scatter")
    except (KeyError, TypeError, ValueError):  # it is whole, but of another version of galip
        return None
    return statistics, arrays


def store(folder: Path | None, key: str, statistics: Statistics, arrays: dict[str, np.ndarray]) -> None:
    """Keep statistics and arrays under `key`, whole or not at all; where that fails, it is logged."""
    if folder is None:
        return
    data = io.BytesIO()
    np.savez(data, **_named(statistics, arrays))  # type: ignore[arg-type]
    write_cached(_path(folder, key), data.getbuffer())


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.kept"


def _named(statistics: Statistics, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    own = {"count": np.array(statistics.count), "mean": statistics.mean, "scatter": statistics.scatter}
    return own | arrays
