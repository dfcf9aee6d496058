"""What makes a folder of shards whole: its record `dataset.json`, and the mark of a build cut short."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular

from galip.data.texts import read_json

__all__ = ["DATASET_FILE", "PARTIAL_FILE", "check_sums", "check_whole", "sha256_of", "tars_in"]

DATASET_FILE = "dataset.json"
"""Lists the shards with sizes and sums; written last. A user's own shards need none."""
PARTIAL_FILE = ".partial"
"""There while a build replaces its files: the folder is not to be used."""


def _listed(folder: Path) -> list[dict[str, Any]]:
    """The shards, {name, bytes, sha256}, that `dataset.json` lists; none where there is no such file."""
    record = folder / DATASET_FILE
    if not record.is_file():
        return []
    try:
        return [_entry(shard) for shard in read_json(record)["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileRefused(f"{record} cannot be read ({error!r}); build the data again.") from error


def _entry(shard: Any) -> dict[str, Any]:
    kinds = {"name": str, "bytes": int, "sha256": str}
    for field, kind in kinds.items():
        if type(shard[field]) is not kind:
            raise TypeError(f"{field} is {shard[field]!r:.80}")
    return {field: shard[field] for field in kinds}


def tars_in(folder: Path) -> list[Path]:
    """The tars of a folder, in order; no hidden ones, of which macOS writes one for each, and no folders."""
    tars = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    return [path for path in tars if not path.is_dir()]


def check_whole(folder: Path) -> list[Path]:
    """All tars of a folder. Raises FileRefused for a build cut short or one unlike its `dataset.json`."""
    if (folder / PARTIAL_FILE).exists():
        raise FileRefused(f"{folder} holds a build that was cut short ({PARTIAL_FILE}); build it again.")
    found = tars_in(folder)
    listed = {shard["name"]: shard["bytes"] for shard in _listed(folder)}
    sizes = {path.name: path.stat().st_size for path in found}
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
    return found


def check_sums(folder: Path, shards: Iterable[Path]) -> None:
    """Raises FileRefused where a shard's sha256 is not what `dataset.json`, if there is one, lists."""
    listed = {shard["name"]: shard["sha256"] for shard in _listed(folder)}
    for path in shards:
        if path.name in listed and sha256_of(path) != listed[path.name]:
            raise FileRefused(
                f"{path} was altered: its sha256 is not {DATASET_FILE}'s. Build the data again."
            )


def sha256_of(path: Path) -> str:
    """A file's sha256 in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
