"""A folder of shards, whole or not: its record `dataset.json`, and the mark of a build that was cut short."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.bundle.decoding import typed
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular, sha256_rest

from galip.data.texts import read_json

__all__ = ["DATASET_FILE", "PARTIAL_FILE", "SET_FILE", "check_sums", "check_whole", "tars_in"]

DATASET_FILE = "dataset.json"
"""Lists the shards with their sizes and hashes; written last. A user's own shards need none."""
PARTIAL_FILE = ".partial"
"""Present while a build replaces its files: the folder must not be used."""
SET_FILE = "set.json"
"""The record of a set that `galip generate-set` made."""


@dataclass(frozen=True)
class _ShardRecord:
    """What `dataset.json` lists of a shard."""

    name: str
    bytes: int
    sha256: str


def _read_records(folder: Path) -> tuple[_ShardRecord, ...]:
    """Return the shards that `dataset.json` lists; none if there is no such file."""
    record = folder / DATASET_FILE
    if not record.is_file():
        return ()
    try:
        shards: tuple[_ShardRecord, ...] = typed(tuple[_ShardRecord, ...], read_json(record)["shards"])
    except (ValueError, KeyError, TypeError, FileRefused) as error:
        raise FileRefused(f"{record} cannot be read ({error!r}); build the data again.") from error
    return shards


def tars_in(folder: Path) -> list[Path]:
    """Return the tars of a folder, in order, without folders and hidden files, which macOS adds to each."""
    names = os.listdir(folder) if folder.is_dir() else []
    tars = [name for name in sorted(names) if name.lower().endswith(".tar") and not name.startswith(".")]
    return [folder / name for name in tars if not (folder / name).is_dir()]


def check_whole(folder: Path) -> list[Path]:
    """Return all tars of a folder. Raises FileRefused for a build cut short or unlike its `dataset.json`."""
    if (folder / PARTIAL_FILE).exists():
        raise FileRefused(f"{folder} holds a build that was cut short ({PARTIAL_FILE}); build it again.")
    tars = tars_in(folder)
    listed = {shard.name: shard.bytes for shard in _read_records(folder)}
    sizes = {path.name: path.stat().st_size for path in tars}
    for name, size in listed.items():
        if sizes.get(name) != size:
            state = f"has {sizes[name]} bytes" if name in sizes else "is not there"
            raise FileRefused(
                f"{folder / name} {state}; {DATASET_FILE} says {size} bytes. Build the data again."
            )
    if listed and (unknown := sorted(sizes.keys() - listed.keys())):
        raise FileRefused(
            f"{folder} has {unknown[0]}, which {DATASET_FILE} doesn't list. Remove it or build again."
        )
    return tars


def check_sums(folder: Path, shards: Iterable[Path]) -> None:
    """Raise FileRefused if a shard's sha256 differs from the one that `dataset.json` lists, if it does."""
    listed = {shard.name: shard.sha256 for shard in _read_records(folder)}
    for path in shards:
        if path.name not in listed:
            continue
        with open_regular(path) as file:
            sha256 = sha256_rest(file)
        if sha256 != listed[path.name]:
            raise FileRefused(
                f"{path} was altered: its sha256 is not {DATASET_FILE}'s. Build the data again."
            )
