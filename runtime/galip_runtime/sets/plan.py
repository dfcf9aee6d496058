"""What a set consists of: the pictures in order, where each shard begins, and the record `set.json`."""

import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular, write_atomically
from galip_runtime.noise import MAX_SEED, check_truncation
from galip_runtime.sets.options import SetOptions
from galip_runtime.sets.prompts import PromptSource, Row

__all__ = [
    "SET_FILE",
    "Picture",
    "Shard",
    "ShardIndex",
    "check_plan",
    "pictures_from",
    "read_plan",
    "read_shard",
]

SET_FILE = "set.json"
"""The record of the set's plan."""
_MAX_RECORD = 2**24
_NOT_COMPARED = ("versions", "prompts.name")
"""What may differ when a set is continued."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to generate."""

    number: int
    """from 0 on in the whole set"""
    prompt_number: int
    prompt: str
    seed: int
    id: str | int | None
    place: int
    """of its prompt in the file"""
    within: int
    """its number among the pictures of its prompt"""


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a set that is written as a whole: which pictures, and where their prompts are."""

    number: int
    first: int
    """number of the first picture"""
    count: int
    """pictures"""
    place: int
    """of the first picture's prompt in the file"""
    prompt: int
    """number of the first picture's prompt"""
    within: int
    """the first picture's number among those of its prompt"""
    checksum: int
    """CRC-32 of prompts and seeds"""


def pictures_from(
    source: PromptSource, options: SetOptions, *, place: int | None = None, prompt: int = 0, first: int = 0
) -> Iterator[Picture]:
    """Yield all pictures from a prompt on: it begins at `place`, is number `prompt`, its picture `first`.

    Raises as the source does, and UsageError for seeds that contradict the options or pass the largest.
    """
    number = first
    for prompt_number, row in enumerate(source.rows(place), prompt):
        for within, seed in enumerate(_seeds(row, options, number)):
            if seed > MAX_SEED:
                raise UsageError(
                    f"prompt {prompt_number} of {source.path} would have the seed {seed}, and the largest is "
                    f"{MAX_SEED} (2^64 - 1); begin with a smaller one"
                )
            yield Picture(number, prompt_number, row.prompt, seed, row.id, row.place, within)
            number += 1


def _seeds(row: Row, options: SetOptions, number: int) -> Iterator[int]:
    """Return the seeds of a prompt whose first picture is `number`."""
    own = row.seed is not None or row.seeds is not None
    if own and options.seeds is not None:
        raise UsageError(
            f"{options.prompts} gives prompts seeds of their own ({row.prompt!r:.40}); leave out the seeds "
            "for all prompts, or remove those"
        )
    if row.seeds is not None:
        if options.count != 1:
            raise UsageError(
                f"{options.prompts} lists seeds ({row.prompt!r:.40}), which say how many: leave out count"
            )
        return iter(row.seeds)
    if options.seeds is not None:
        return iter(options.seeds)
    start = options.first_seed + number if row.seed is None else row.seed
    return iter(range(start, start + options.count))


def read_shard(source: PromptSource, options: SetOptions, shard: Shard) -> Iterator[Picture]:
    """Yield the pictures of a shard.

    Raises FileRefused after the last if the file is not the one that the shard was planned from.
    """
    beginning = pictures_from(
        source, options, place=shard.place, prompt=shard.prompt, first=shard.first - shard.within
    )
    checksum, count = 0, 0
    for picture in islice(beginning, shard.within, shard.within + shard.count):
        checksum, count = _checksum(picture, checksum), count + 1
        yield picture
    if (checksum, count) != (shard.checksum, shard.count):
        raise FileRefused(
            f"{source.path} is not what it was when the set was planned: it was changed, or this machine has "
            "another file of that name"
        )


def _checksum(picture: Picture, before: int) -> int:
    return zlib.crc32(f"{picture.seed} {picture.id} {picture.prompt}\n".encode(), before)


class ShardIndex:
    """Where each shard begins: 32 bytes a shard. `pictures` and `prompts` are the numbers of both."""

    def __init__(self, shard_size: int) -> None:
        self.pictures = self.prompts = 0
        self._size = shard_size
        self._places, self._prompts = array("Q"), array("Q")
        self._within, self._checksums = array("Q"), array("Q")

    @classmethod
    def scan(
        cls, source: PromptSource, options: SetOptions, progress: Callable[[int], object] | None = None
    ) -> "ShardIndex":
        """Read all prompts and check them. `progress(pictures)` is called at each shard.

        Raises UsageError, naming the line, for a prompt that cannot be used and for a file without any;
        FileRefused for a file that cannot be read.
        """
        check_truncation(options.truncation)
        index = cls(options.shard_size)
        checksum, picture = 0, None
        for picture in pictures_from(source, options):
            if picture.number % options.shard_size == 0:
                if picture.number:
                    index._checksums.append(checksum)
                index._begin(picture)
                checksum = 0
                if progress is not None:
                    progress(picture.number)
            checksum = _checksum(picture, checksum)
        if picture is None:
            raise UsageError(f"{source.path} has no prompts")
        index._checksums.append(checksum)
        index.pictures, index.prompts = picture.number + 1, picture.prompt_number + 1
        return index

    def _begin(self, picture: Picture) -> None:
        self._places.append(picture.place)
        self._prompts.append(picture.prompt_number)
        self._within.append(picture.within)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._places)

    def __getitem__(self, number: int) -> Shard:
        """Return shard `number`."""
        first = number * self._size
        return Shard(
            number,
            first,
            min(self._size, self.pictures - first),
            self._places[number],
            self._prompts[number],
            self._within[number],
            self._checksums[number],
        )


def check_plan(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Write `plan` as the record of a new set, or compare it with the record that is there.

    Returns whether it was there. Raises UsageError, saying what differs, if it is another plan; FileRefused
    for a record that cannot be read; UsageError if it cannot be written.
    """
    path = folder / SET_FILE
    if not path.exists():
        write_atomically(path, (json.dumps(plan, indent=2) + "\n").encode())
        return False
    before, now = _flat(read_plan(folder)), _flat(plan)
    differing = [
        f"{name}: {before.get(name)!r:.80} there, {now.get(name)!r:.80} now"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name) and not name.startswith(_NOT_COMPARED)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds another set; repeat its options to finish it, or name another folder", *differing
        )
    return True


def read_plan(folder: Path) -> dict[str, Any]:
    """Return the record of a set. Raises FileRefused if it cannot be read."""
    try:
        document = json.loads(read_regular(folder / SET_FILE, _MAX_RECORD))
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"{folder / SET_FILE} is not JSON ({error}); name another folder") from error
    if not isinstance(document, dict):
        raise FileRefused(f"{folder / SET_FILE} is not the record of a set; name another folder")
    return document


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values by dotted names."""
    values: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values
