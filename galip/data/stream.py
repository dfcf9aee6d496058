"""An endless stream of shards, read one after the other and shuffled in blocks. It can resume anywhere.

The order of an epoch's shards is random by (seed, epoch), and the shards are dealt to the lanes, one for each
worker of each rank. A lane reads its shards in turn, in blocks of `BLOCK_SAMPLES`, and shuffles each block.
So in an epoch every sample comes once, over all lanes. Lanes don't wait for each other: one whose shards
hold less begins its next epoch earlier.

A place is (epoch, shard, sample, taken): the block that begins at that sample of the lane's shard, and how
many samples of it were taken. To resume from a place, the headers of that shard's members up to there are
read, and the block again; nothing is decoded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from galip_runtime.errors import FileRefused, UsageError

from galip.data.conditions import excluded
from galip.data.decode import BrokenPicture
from galip.data.layouts.shards import check_readers
from galip.data.left_out import LeftOut
from galip.data.sampler import generator_for
from galip.data.shard_reader import RawSample, check_ends, contents_of, raw_sample

__all__ = ["BLOCK_SAMPLES", "START", "Place", "ShardStream"]

BLOCK_SAMPLES = 1000
"""Adjacent samples of one lane that are shuffled together."""
BLOCK_BYTES = 256 * 2**20
"""Of encoded pictures: a block of large ones ends earlier."""

Place = tuple[int, int, int, int]
START: Place = (0, 0, 0, 0)

Item = RawSample | BrokenPicture
Position = tuple[int, int]
"""A shard's number in its lane and epoch, and a sample's in that shard."""


class ShardStream:
    """The lanes of a split's shards. Can be pickled."""

    def __init__(self, shards: Sequence[Path], lanes: int, seed: int, exclude: Sequence[str] = ()) -> None:
        """Raises `UsageError` for fewer shards than lanes, `FileRefused` naming truncated shards."""
        check_ends(shards)
        check_readers(shards, lanes)
        self.shards, self.lanes, self.seed, self.exclude = list(shards), lanes, seed, tuple(exclude)

    def shards_of(self, lane: int, epoch: int) -> list[Path]:
        """Return the shards that a lane reads in an epoch, in order."""
        order = torch.randperm(len(self.shards), generator=generator_for(self.seed, "shards", epoch))
        return [self.shards[index] for index in order[lane :: self.lanes].tolist()]

    def lane(
        self, lane: int, place: Place = START, left_out: LeftOut | None = None
    ) -> Iterator[tuple[Item, Place]]:
        """Yield without end, from `place` on, a sample or what is broken about it, and the place after it.

        What the first epoch has beside its samples is counted in `left_out`: that of a block with the first
        sample that is taken of it, so that one who goes on from a place counts it no second time.
        Raises `FileRefused` for a broken tar, `UsageError` if an epoch has nothing for this lane.
        """
        begin, taken = place[1:3], place[3]
        for epoch in itertools.count(place[0]):
            empty = True
            for (shard, sample), block, beside in self._blocks(lane, epoch, *begin):
                if left_out is not None and epoch == 0 and taken == 0:
                    left_out.add_all(beside)
                rng = generator_for(self.seed, f"block {lane} {shard} {sample}", epoch)
                order = torch.randperm(len(block), generator=rng).tolist()
                for count in range(taken, len(order)):
                    yield block[order[count]], (epoch, shard, sample, count + 1)
                taken, empty = 0, False
            if empty:
                raise UsageError(
                    f"the shards {', '.join(path.name for path in self.shards_of(lane, epoch)[:3])}, … hold "
                    f"nothing, or nothing that {list(self.exclude)} leaves; exclude less."
                )
            begin = (0, 0)

    def _blocks(
        self, lane: int, epoch: int, shard: int, sample: int
    ) -> Iterator[tuple[Position, list[Item], LeftOut]]:
        """Yield the rest of an epoch in blocks, each with the position that it begins at and what was left
        out since the block before it.
        """
        block: list[Item] = []
        left_out = LeftOut()
        start, size = (shard, sample), 0
        for position, item in self._read(self.shards_of(lane, epoch), left_out, shard, sample):
            if len(block) == BLOCK_SAMPLES or size > BLOCK_BYTES:
                yield start, block, left_out.take()
                block, size = [], 0
            if not block:
                start = position
            block.append(item)
            size += 0 if isinstance(item, BrokenPicture) else len(item.content)
        if block:
            yield start, block, left_out

    def in_order(self) -> Iterator[Item]:
        """Yield all samples in the order of the shards, once."""
        return (item for _, item in self._read(self.shards, LeftOut()))

    def _read(
        self, shards: Sequence[Path], left_out: LeftOut, shard: int = 0, sample: int = 0
    ) -> Iterator[tuple[Position, Item]]:
        """Yield what these shards hold from a sample of one on, and count the rest in `left_out`."""
        for number, path in enumerate(shards[shard:], shard):
            skip = sample if number == shard else 0
            for index, (key, members) in enumerate(contents_of(path, left_out, skip=skip), skip):
                try:
                    if isinstance(members, BrokenPicture):
                        raise members
                    raw = raw_sample(path, key, members, left_out)
                except FileRefused as error:  # of this sample alone; a broken tar is raised by `contents_of`
                    yield (number, index), BrokenPicture(str(error))
                    continue
                if not excluded(raw.meta, self.exclude):
                    yield (number, index), raw
