"""Writing shards, each whole or not at all: as a WebDataset tar, or as a folder with a `captions.jsonl`.

Equal samples give equal bytes: nothing carries a time or an owner.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galip_runtime.errors import UsageError
from galip_runtime.files import staging_folder

__all__ = ["Names", "Sample", "read_failures", "write_failures", "write_shard"]

CAPTIONS_FILE = "captions.jsonl"
_FAILURES = ".failures.jsonl"


@dataclass(frozen=True)
class Sample:
    """A picture of a shard as it is written."""

    key: str
    content: bytes
    """the picture's file"""
    caption: str
    meta: dict[str, Any]
    """what else is known of it, fit for JSON"""


@dataclass(frozen=True)
class Names:
    """The names of a set's files, all equally long, so that they sort as their numbers do."""

    shards: int
    pictures: int
    layout: str

    def shard(self, number: int) -> str:
        """Return the name of a shard: `000000.tar`, or in the layout `folder` `000000`."""
        return self._stem(number) + (".tar" if self.layout == "webdataset" else "")

    def failures(self, number: int) -> str:
        """Return the name of the list of pictures that a shard lacks."""
        return self._stem(number) + _FAILURES

    def key(self, picture: int) -> str:
        """Return the key of a picture."""
        return f"{picture:0{max(9, len(str(self.pictures - 1)))}d}"

    def present(self, folder: Path) -> set[int]:
        """Return the numbers of the shards that are there. Raises OSError."""
        width = len(self._stem(0))
        ending = re.escape(self.shard(0)[width:])
        name = re.compile(rf"(\d{{{width}}}){ending}", re.ASCII)
        return {int(match[1]) for entry in os.listdir(folder) if (match := name.fullmatch(entry))}

    def _stem(self, number: int) -> str:
        return f"{number:0{max(6, len(str(self.shards - 1)))}d}"


def write_shard(target: Path, samples: Iterable[Sample], ending: str, layout: str) -> None:
    """Write a shard's samples to `target`, which is there at the end, whole, on disk, or not at all.

    `ending` is that of the pictures' names. Raises UsageError if it cannot be written, and what `samples` do.
    """
    with _writing(target), staging_folder(target.parent) as staging:
        shard = staging / "shard"
        if layout == "webdataset":
            _write_tar(shard, samples, ending)
        else:
            _write_folder(shard, samples, ending)
        _move(shard, target)


def write_failures(target: Path, failures: Sequence[dict[str, Any]]) -> None:
    """Write the list of the pictures that a shard lacks, an object a line. Raises UsageError."""
    with _writing(target), staging_folder(target.parent) as staging:
        _write_file(staging / "list", "".join(f"{_json(failure)}\n" for failure in failures).encode())
        _move(staging / "list", target)


def read_failures(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the pictures that the shards of a set lack, in order. Raises OSError, ValueError."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(_FAILURES) and not name.startswith("."):
            with open(folder / name, encoding="utf-8") as file:  # str.splitlines knows too many line ends
                for line in file:
                    yield json.loads(line)


def _write_tar(path: Path, samples: Iterable[Sample], ending: str) -> None:
    with open(path, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for sample in samples:
                document = _json(sample.meta).encode()
                parts = ((ending, sample.content), ("txt", sample.caption.encode()), ("json", document))
                for suffix, content in parts:
                    member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        _to_disk(file)


def _write_folder(path: Path, samples: Iterable[Sample], ending: str) -> None:
    path.mkdir()
    lines = []
    for sample in samples:
        name = f"{sample.key}.{ending}"
        _write_file(path / name, sample.content)
        lines.append(_json({"file": name, "captions": [sample.caption], **sample.meta}) + "\n")
    _write_file(path / CAPTIONS_FILE, "".join(lines).encode())
    _folder_to_disk(path)


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        _to_disk(file)


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(source: Path, target: Path) -> None:
    """Rename `source`; where another worker has written the same folder before, leave that."""
    try:
        os.replace(source, target)
    except OSError:
        if not (source.is_dir() and target.is_dir()):
            raise
    _folder_to_disk(target.parent)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror or error}); free some space or change what is in "
            "the way, and run the same command again: it goes on from here"
        ) from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
