"""`galip data check`: a data set's pictures, captions and sizes, and what is broken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from galip_runtime.errors import UsageError

from galip.data.captioned import CaptionedPicture, Source
from galip.data.decode import BrokenPicture
from galip.data.layouts.shards import ShardSource, count_pictures, left_beside, shards_of_split
from galip.data.left_out import LeftOut
from galip.data.shard_folder import check_sums
from galip.data.sources import find_split, list_splits, open_source, readable, recognise
from galip.progress import Progress, no_progress

__all__ = ["DataReport", "Samples", "check_data"]

MAX_BROKEN_LISTED = 10


@dataclass(frozen=True)
class DataReport:
    """The contents of a split."""

    path: str
    layout: str
    splits: list[str]
    split: str
    pictures: int
    """Including broken ones."""
    captions: dict[str, float]
    """Captions per picture: min, mean, max, of the pictures that have any."""
    sizes: dict[str, list[int]]
    """[width, height] as stored: smallest, largest (by area), most_common."""
    left_out: dict[str, int]
    """Kinds of things beside the pictures that are not used, and how many of each."""
    left_out_examples: dict[str, list[str]]
    """The first few of each kind."""
    decoded: bool
    """Whether pictures were decoded; otherwise only their headers were read."""
    broken: int
    broken_share: float
    first_broken: list[dict[str, str]]
    """Key and reason of the first ten."""

    def lines(self) -> list[str]:
        """Return the report as lines for a terminal."""
        lines = [
            f"{self.path}: layout {self.layout}, splits: {', '.join(self.splits)}",
            f"{self.split}: {self.pictures:,} pictures",
        ]
        if self.captions:
            least, mean, most = (self.captions[name] for name in ("min", "mean", "max"))
            number = f"{least}" if least == most else f"{least} to {most}, {mean} on average"
            lines.append(f"captions each: {number}")
        if self.sizes:
            names = ("smallest", "largest", "most_common")
            smallest, largest, common = ("{} x {}".format(*self.sizes[name]) for name in names)
            all_same = smallest == largest
            lines.append(
                f"size: {common}" if all_same else f"sizes: {smallest} to {largest}, most often {common}"
            )
        lines += LeftOut(self.left_out, self.left_out_examples).lines()
        how = "all decoded" if self.decoded else "only heads read"
        lines.append(f"broken: {self.broken:,} ({self.broken_share:.2%}), {how}")
        lines += [f"  {picture['key']}: {picture['reason']}" for picture in self.first_broken]
        if self.broken > len(self.first_broken):
            lines.append(f"  and {self.broken - len(self.first_broken):,} more")
        return lines


@dataclass
class _Count:
    """What was counted so far."""

    pictures: int = 0
    captions: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    broken: int = 0
    first_broken: list[dict[str, str]] = field(default_factory=list)

    def add(self, source: Source, index: int, decode: bool) -> bool:
        """Check one picture; return whether it is whole."""
        self.pictures += 1
        try:
            captions = source.captions(index)
            size = source.encoded(index).size()
            if decode:
                source[index]
        except BrokenPicture as error:
            self.broken += 1
            if len(self.first_broken) < MAX_BROKEN_LISTED:
                self.first_broken.append({"key": source.key(index), "reason": str(error)})
            return False
        self.captions[len(captions)] += 1
        self.sizes[size] += 1
        return True


def check_data(
    path: Path,
    *,
    layout: str = "auto",
    split: str = "train",
    decode: bool = True,
    samples: int = 0,
    progress: Progress = no_progress,
) -> tuple[DataReport, Samples]:
    """Check every picture of a split; also return `samples` of them, random but the same every time.

    Shards are opened one by one, so that a set of any size can be checked. Raises what `open_source`
    raises; broken pictures are counted.
    """
    layout = recognise(path, layout)
    split = find_split(path, split, layout)
    count, chosen = _Count(), Samples(samples)
    with readable(path):
        if layout == "shards":
            count.left_out.add_all(left_beside(path, split))
        for source, total in _parts(path, split, layout):
            count.left_out.add_all(source.left_out)
            for index in range(len(source)):
                if count.add(source, index, decode):
                    chosen.add((source, index))
                progress(f"checking {split}", count.pictures, max(total, count.pictures + 1))
    if count.pictures == 0:
        raise UsageError(f"{path} (layout {layout}) has no pictures in split {split!r}.")
    progress(f"checking {split}", count.pictures, count.pictures)
    if not decode:
        chosen.remove_broken()
    return _report(path, layout, split, decode, count), chosen


class Samples:
    """A uniform random sample of pictures, each decoded when its turn comes."""

    def __init__(self, most: int) -> None:
        self.most, self._pictures, self._count = most, list[tuple[Source, int]](), 0
        self._rng = random.Random(0)

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[CaptionedPicture]:
        """Raises `BrokenPicture` for one that was whole before."""
        return (source[index] for source, index in self._pictures)

    def add(self, picture: tuple[Source, int]) -> None:
        """Add a picture by reservoir sampling: their number isn't known beforehand."""
        self._count += 1
        if len(self._pictures) < self.most:
            self._pictures.append(picture)
        elif (place := self._rng.randrange(self._count)) < self.most:
            self._pictures[place] = picture

    def remove_broken(self) -> None:
        """Remove the pictures that can't be decoded, if only headers were read."""
        self._pictures = [(source, index) for source, index in self._pictures if _is_whole(source, index)]


def _is_whole(source: Source, index: int) -> bool:
    try:
        source[index]
    except BrokenPicture:
        return False
    return True


def _parts(path: Path, split: str, layout: str) -> Iterator[tuple[Source, int]]:
    """Yield the sources of the split, each with the number of all pictures as far as it is known."""
    if layout != "shards":
        source = open_source(path, split, layout)
        yield source, len(source)
        return
    known, shards = count_pictures(path, split), shards_of_split(path, split)
    check_sums(shards[0].parent, shards)
    for shard in shards:
        part = ShardSource(split, [shard])
        yield part, known or len(shards) * len(part)


def _report(path: Path, layout: str, split: str, decode: bool, count: _Count) -> DataReport:
    captions: dict[str, float] = {}
    sizes: dict[str, list[int]] = {}
    if whole := count.captions.total():
        mean = sum(number * times for number, times in count.captions.items()) / whole
        captions = {"min": min(count.captions), "mean": round(mean, 2), "max": max(count.captions)}
        by_area = sorted(count.sizes, key=lambda size: (size[0] * size[1], size))
        chosen = {
            "smallest": by_area[0],
            "largest": by_area[-1],
            "most_common": count.sizes.most_common(1)[0][0],
        }
        sizes = {name: list(size) for name, size in chosen.items()}
    return DataReport(
        str(path),
        layout,
        list_splits(path, layout),
        split,
        count.pictures,
        captions,
        sizes,
        dict(count.left_out),
        count.left_out.examples,
        decode,
        count.broken,
        count.broken / max(count.pictures, 1),
        count.first_broken,
    )
