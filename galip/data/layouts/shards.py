"""WebDataset shards on local disk, as img2dataset (CC3M, CC12M) and `write_shards` write them.

    00000.tar … (or SPLIT-00000.tar …, or SPLIT/00000.tar …) of KEY.jpg, KEY.txt and KEY.json

`00000_stats.json` and `00000.parquet` beside them are not needed. Captions are kept in memory, and a picture
is read from its place in the tar when it is asked for; `galip.data.stream` is for larger sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import open_regular

from galip.data.captioned import CaptionedPicture
from galip.data.decode import BrokenPicture, EncodedPicture
from galip.data.layouts.layout import Layout
from galip.data.left_out import LeftOut
from galip.data.shard_folder import DATASET_FILE, SET_FILE, check_sums, tars_in
from galip.data.shard_reader import (
    TEXT_ENDINGS,
    captions_and_meta,
    check_size,
    members_of,
    picture_ending,
    read_member,
)
from galip.data.shards import shard_paths
from galip.data.texts import read_json

__all__ = [
    "LAYOUT",
    "ShardSource",
    "check_readers",
    "count_pictures",
    "is_streamed",
    "left_beside",
    "shards_of_split",
]

STREAM_FROM = 2 * 2**30
"""Bytes of shards above which `auto` streams."""
SPLITS = ("train", "val", "test")
MAX_STATS_BYTES = 2**20


def matches(path: Path) -> bool:
    """Return whether there are tars."""
    return any(tars_in(folder) for folder in (path, *(path / split for split in SPLITS)))


def list_splits(path: Path) -> list[str]:
    """Return the splits that name tars or their folder; tars of other names are `train`."""
    if folders := [split for split in SPLITS if tars_in(path / split)]:
        return folders
    named = [split for split in SPLITS if any(tar.name.startswith(f"{split}-") for tar in tars_in(path))]
    return named if "train" in named or not _others(path) else ["train", *named]


def _others(path: Path) -> list[Path]:
    """Return the tars that no split names."""
    return [tar for tar in tars_in(path) if not tar.name.startswith(tuple(f"{split}-" for split in SPLITS))]


def left_beside(path: Path, split: str) -> LeftOut:
    """Count what lies beside the tars of a split and is not read."""
    left_out = LeftOut()
    shards = shards_of_split(path, split)
    for file in sorted(shards[0].parent.iterdir()):
        ending = file.suffix.lower()
        belongs = (
            file.name in (DATASET_FILE, SET_FILE) or file.name.endswith("_stats.json") or ending == ".parquet"
        )
        if file.is_file() and ending != ".tar" and not belongs and not file.name.startswith("."):
            left_out.add(f"files beside the tars ending in {ending or 'nothing'}", file.name)
    unread = set(_others(path)) if "train" in list_splits(path) else set()
    for tar in sorted(unread - set(shards)):
        left_out.add("tars that belong to no split", tar.name)
    return left_out


def shards_of_split(path: Path, split: str) -> list[Path]:
    """Return the split's tars, in order. Raises as `galip.data.shards.shard_paths`."""
    folder = path / split
    return shard_paths(folder, "train") if tars_in(folder) else shard_paths(path, split)


def is_streamed(path: Path, split: str, layout: str, stream: str) -> bool:
    """Return whether to stream the data: `stream` is yes, no, or auto, for large sets of shards.

    Raises `UsageError` if asked to stream another layout, and as `shards_of_split`.
    """
    if layout != "shards":
        if stream == "yes":
            raise UsageError(f"{path} is of layout {layout}; only shards can be streamed")
        return False
    if stream != "auto":
        return stream == "yes"
    return sum(shard.stat().st_size for shard in shards_of_split(path, split)) > STREAM_FROM


def check_readers(shards: Sequence[Path], readers: int) -> None:
    """Raise `UsageError` for fewer shards than readers of a stream."""
    if len(shards) < readers:
        raise UsageError(
            f"{len(shards)} shards cannot be dealt to {readers} readers (ranks times workers, each its "
            "own); lower --workers or start fewer processes, or split the data into more shards."
        )


def count_pictures(path: Path, split: str) -> int:
    """Return the number of pictures by `dataset.json` or img2dataset's `*_stats.json`; 0 if neither tells."""
    try:
        record = path / DATASET_FILE
        if record.is_file():
            return _whole(read_json(record)["summary"]["per_split"][split])
        stats = [shard.with_name(f"{shard.stem}_stats.json") for shard in shards_of_split(path, split)]
        if not all(file.is_file() for file in stats):
            return 0
        return sum(_whole(read_json(file, MAX_STATS_BYTES)["successes"]) for file in stats)
    except (ValueError, KeyError, TypeError, FileRefused):
        return 0  # another program's record: it says nothing about pictures


def _whole(value: object) -> int:
    """Return a number of pictures. Raises TypeError for anything else, also for text that looks like one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r:.80} is no number of pictures")
    return value


@dataclass(frozen=True)
class _Entry:
    """Where a sample's picture is, or why it has no picture or caption."""

    key: str
    shard: int
    offset: int
    size: int
    captions: tuple[str, ...]
    meta: dict[str, Any]
    broken: str = ""


class ShardSource:
    """A split's shards, indexed; the keys are the samples'."""

    layout = "shards"

    def __init__(self, split: str, shards: list[Path]) -> None:
        self.split, self._shards = split, shards
        self.left_out = LeftOut()
        self._entries = [entry for number in range(len(shards)) for entry in self._index(number)]

    def _index(self, number: int) -> Iterator[_Entry]:
        shard = self._shards[number]
        for tar, key, members in members_of(shard, self.left_out):
            try:
                picture = members[picture_ending(shard, key, members)]
                texts = {end: members[end] for end in members if end in TEXT_ENDINGS}
                for member in (picture, *texts.values()):
                    check_size(shard, member)
                contents = {end: read_member(tar, member) for end, member in texts.items()}
                captions, meta = captions_and_meta(shard, key, contents, self.left_out)
                yield _Entry(key, number, picture.offset, picture.size, captions, meta)
            except FileRefused as error:
                yield _Entry(key, number, 0, 0, (), {}, str(error))

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, index: int) -> _Entry:
        entry = self._entries[index]
        if entry.broken:
            raise BrokenPicture(entry.broken)
        return entry

    def key(self, index: int) -> str:
        """Return the name of sample `index`."""
        return self._entries[index].key

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the caption, then the JSON's. Raises `BrokenPicture` if there is none."""
        return self._entry(index).captions

    def meta(self, index: int) -> dict[str, Any]:
        """Return the sample's JSON."""
        return self._entries[index].meta

    def encoded(self, index: int) -> EncodedPicture:
        """Return picture `index` as stored. Raises `BrokenPicture`; `FileRefused` if its shard is gone."""
        entry = self._entry(index)
        shard = self._shards[entry.shard]
        try:
            with open_regular(shard) as file:
                file.seek(entry.offset)
                content = file.read(entry.size)
        except OSError as error:
            raise FileRefused(f"{shard} cannot be read any more: {error.strerror}. Put it back.") from error
        return EncodedPicture(f"{shard}: sample {entry.key}", content)

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Decode picture `index`. Raises `BrokenPicture`."""
        entry = self._entry(index)
        return CaptionedPicture(entry.key, self.encoded(index).decode(), entry.captions, entry.meta)


def open_split(path: Path, split: str) -> ShardSource:
    """Open a split. Raises `FileRefused` for a broken tar or one that differs from `dataset.json`."""
    shards = shards_of_split(path, split)
    check_sums(shards[0].parent, shards)
    source = ShardSource(split, shards)
    source.left_out.add_all(left_beside(path, split))
    return source


LAYOUT = Layout(
    contents="*.tar (WebDataset shards: KEY.jpg, KEY.txt, KEY.json), there or in train/, val/, test/",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
)
