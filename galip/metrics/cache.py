"""Features of references, kept on disk: the same pictures, seen the same way, needn't be looked at twice."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime import console
from galip_runtime.folders import cache_home

from galip.metrics.statistics import Statistics

__all__ = ["cache_folder", "cached", "key_of", "store"]

Found = tuple[Statistics, dict[str, np.ndarray]]


def cache_folder() -> Path:
    """`features` in `cache_home`."""
    return cache_home() / "features"


def key_of(**what: Any) -> str:
    """A name for whatever decides the features."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:32]


def cached(folder: Path, key: str) -> Found | None:
    """Statistics and arrays stored under `key`; None where there are none or the file is damaged."""
    path = folder / f"{key}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        statistics = Statistics(len(arrays["mean"]))
        statistics.count = int(arrays.pop("count"))
        statistics.mean, statistics.scatter = arrays.pop("mean"), arrays.pop("scatter")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        console.message(f"galip: {path} is damaged ({error}) and is made again")
        return None
    return statistics, arrays


def store(folder: Path, key: str, statistics: Statistics, arrays: dict[str, np.ndarray]) -> None:
    """Keep statistics and arrays under `key`, whole or not at all; a folder that can't be written is told."""
    path = folder / f"{key}.npz"
    temporary = path.with_name(f".{key}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **_named(statistics, arrays))  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        console.message(f"galip: features are not kept: {folder}: {error.strerror}")
    finally:
        temporary.unlink(missing_ok=True)


def _named(statistics: Statistics, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    own = {"count": np.array(statistics.count), "mean": statistics.mean, "scatter": statistics.scatter}
    return own | arrays
