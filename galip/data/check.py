"""What `galip data check` says of a data set: pictures, captions, sizes, and what is broken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from galip_runtime.errors import UsageError

from galip.data.captioned import CaptionedPicture, Source
from galip.data.decode import BrokenPicture
from galip.data.folder import check_sums
from galip.data.layouts.shards import ShardSource, count_pictures, left_beside, shards_of_split
from galip.data.sources import find_split, list_splits, open_source, readable, recognise

__all__ = ["DataReport", "Samples", "check_data"]

BROKEN_LISTED = 10

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DataReport:
    """What a split holds."""

    path: str
    layout: str
    splits: list[str]
    split: str
    pictures: int
    """Broken ones, too."""
    captions: dict[str, float]
    """A picture's: min, mean, max; of those that have any."""
    sizes: dict[str, list[int]]
    """[width, height] as stored: smallest, largest (by area), most_common."""
    left_out: dict[str, int]
    """What lies beside and is not used, with how many of it."""
    decoded: bool
    """Whether whole pictures were decoded, or only their heads read."""
    broken: int
    broken_share: float
    first_broken: list[dict[str, str]]
    """key and reason, of the first ten."""

    def lines(self) -> list[str]:
        """The same for people."""
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
        lines += [f"left out: {count:,} {what}" for what, count in sorted(self.left_out.items())]
        how = "all decoded" if self.decoded else "only heads read"
        lines.append(f"broken: {self.broken:,} ({self.broken_share:.2%}), {how}")
        lines += [f"  {each['key']}: {each['reason']}" for each in self.first_broken]
        if self.broken > len(self.first_broken):
            lines.append(f"  and {self.broken - len(self.first_broken):,} more")
        return lines


@dataclass
class _Count:
    """What was met so far."""

    pictures: int = 0
    captions: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    first_broken: list[dict[str, str]] = field(default_factory=list)

    def add(self, source: Source, index: int, decode: bool) -> bool:
        """Look at one picture; whether it is whole."""
        self.pictures += 1
        try:
            captions = source.captions(index)
            size = source.encoded(index).size()
            if decode:
                source[index]
        except BrokenPicture as error:
            self.broken += 1
            if len(self.first_broken) < BROKEN_LISTED:
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
    progress: Progress | None = None,
) -> tuple[DataReport, Samples]:
    """Looks at every picture of a split; also gives `samples` of them, drawn at random, the same each time.

    Shards are gone through one by one, so that a set of any size can be checked. Raises what `open_source`
    raises; broken pictures are counted.
    """
    layout = recognise(path, layout)
    split = find_split(path, split, layout)
    report = progress or (lambda what, done, total: None)
    count, drawn = _Count(), Samples(samples)
    with readable(path):
        if layout == "shards":
            count.left_out.update(left_beside(path, split))
        for source, total in _parts(path, split, layout):
            count.left_out.update(source.left_out)
            for index in range(len(source)):
                if count.add(source, index, decode):
                    drawn.add((source, index))
                report(f"checking {split}", count.pictures, max(total, count.pictures + 1))
    if count.pictures == 0:
        raise UsageError(f"{path} (layout {layout}) has no pictures in split {split!r}.")
    report(f"checking {split}", count.pictures, count.pictures)
    if not decode:
        drawn.leave_out_broken()
    return _report(path, layout, split, decode, count), drawn


class Samples:
    """Some pictures of many, each as likely; decoded one at a time, when it is their turn."""

    def __init__(self, most: int) -> None:
        self.most, self._kept, self._seen, self._rng = most, list[tuple[Source, int]](), 0, random.Random(0)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[CaptionedPicture]:
        """Raises `BrokenPicture` for one that was whole before."""
        return (source[index] for source, index in self._kept)

    def add(self, picture: tuple[Source, int]) -> None:
        """Reservoir sampling: the number of all isn't known before."""
        self._seen += 1
        if len(self._kept) < self.most:
            self._kept.append(picture)
        elif (place := self._rng.randrange(self._seen)) < self.most:
            self._kept[place] = picture

    def leave_out_broken(self) -> None:
        """Decode those of which only heads were read."""
        self._kept = [(source, index) for source, index in self._kept if _is_whole(source, index)]


def _is_whole(source: Source, index: int) -> bool:
    try:
        source[index]
    except BrokenPicture:
        return False
    return True


def _parts(path: Path, split: str, layout: str) -> Iterator[tuple[Source, int]]:
    """What the split consists of, with the number of all pictures, as far as it is known."""
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
        decode,
        count.broken,
        count.broken / max(count.pictures, 1),
        count.first_broken,
    )
