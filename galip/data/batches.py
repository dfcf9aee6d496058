"""How batches are made: the picture and caption of each row, and what replaces broken ones.

Every random choice depends on (seed, step, row of the whole batch) alone, so any number of ranks and workers
gets the same. Shapes: N rows of this rank, S picture side, L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from galip_runtime.errors import GalipError, UsageError
from galip_runtime.tokenizer import Tokenizer, trim
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from galip.data.captioned import CaptionedPicture, Source
from galip.data.crop import to_square
from galip.data.decode import BrokenPicture
from galip.data.left_out import LeftOut
from galip.data.sampler import BatchSampler, generator_for
from galip.data.stream import START, Item, Place, ShardStream

__all__ = [
    "ATTEMPTS",
    "Batch",
    "BatchOptions",
    "BatchResult",
    "SourceBatches",
    "StreamBatches",
    "decode_item",
    "encode_captions",
]

ATTEMPTS = 100
"""Broken pictures in a row after which a batch is given up."""


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step's batch."""

    pictures: Tensor
    """uint8 (N, 3, S, S)"""
    tokens: Tensor
    """int64 (N, L), as long as the longest caption among them."""
    rows: Tensor
    """int64 (N): which rows of the step's whole batch these are: rank, rank + world, …"""
    captions: list[str]
    """The captions chosen; "" if the caption was dropped."""


@dataclass(frozen=True)
class BatchOptions:
    """How rows are made: plain values, the same in all processes."""

    size: int
    tokenizer: Tokenizer
    batch_size: int
    """Of the whole batch."""
    seed: int
    rank: int
    world_size: int
    crop: str
    flip: bool
    caption_dropout: float


@dataclass
class BatchResult:
    """A batch, or why there is none, and what was met on the way. Passed between processes."""

    batch: Batch | None = None
    error: GalipError | None = None
    tried: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)
    """(index in the source, or -1 in a stream; what is wrong)"""
    lane: int = 0
    place: Place = START
    """Where a stream's lane stands after this batch."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What a stream's lane met on the way, in its first epoch, and did not use."""


Candidate = tuple[int, Callable[[], CaptionedPicture]]
Row = tuple[NDArray[np.uint8], NDArray[np.int64], str]


class _BatchDataset(IterableDataset[BatchResult]):
    """Step after step from `first` on, without end; of W workers each makes every W-th."""

    def __init__(self, options: BatchOptions) -> None:
        self.options, self.first = options, 0

    def __iter__(self) -> Iterator[BatchResult]:
        worker = get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(self.first + start, stride):
            result = BatchResult()
            try:
                self.fill(step, result)
            except GalipError as error:  # the loader raises it again, with its own type and words
                result.error = error
            yield result
            if result.error:
                return

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """Yield pictures for a row, best first, without end: their numbers and how to load them."""
        raise NotImplementedError

    def fill(self, step: int, result: BatchResult) -> None:
        """Make the batch of `step` and put it, and what was met, into `result`."""
        options = self.options
        numbers = range(options.rank, options.batch_size, options.world_size)
        generator = generator_for(options.seed, "rows", step)
        uniform = torch.rand(options.batch_size, 5, generator=generator).tolist()
        rows = [self._row(step, number, uniform[number], result) for number in numbers]
        if not all(rows):
            return
        pictures, tokens, captions = zip(*(row for row in rows if row), strict=True)
        result.batch = Batch(
            torch.from_numpy(np.stack(pictures)),
            torch.from_numpy(trim(np.stack(tokens))),
            torch.tensor(numbers),
            list(captions),
        )

    def _row(self, step: int, row: int, uniform: Sequence[float], result: BatchResult) -> Row | None:
        """Return picture (3, S, S), tokens (context) and caption; None after too many broken pictures."""
        options = self.options
        choice, dropout, x, y, mirror = uniform
        for number, load in itertools.islice(self.candidates(step, row), ATTEMPTS):
            result.tried += 1
            try:
                sample = load()
                caption = sample.captions[int(choice * len(sample.captions))]
                caption = "" if dropout < options.caption_dropout else caption
                tokens = encode_captions(options.tokenizer, [caption], sample.key)[0]
            except BrokenPicture as error:
                result.broken.append((number, str(error)))
                continue
            is_mirrored = options.flip and mirror < 0.5
            return to_square(sample.picture, options.size, options.crop, x, y, is_mirrored), tokens, caption
        return None


class SourceBatches(_BatchDataset):
    """Batches of a source's pictures: the `chosen` ones, once an epoch."""

    def __init__(self, options: BatchOptions, source: Source, chosen: Tensor) -> None:
        """`chosen` int64 (count). Raises `UsageError` if they are fewer than a batch."""
        super().__init__(options)
        self.source, self.chosen = source, chosen
        self._sampler = BatchSampler(len(chosen), options.batch_size, options.seed)

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """Yield the picture whose turn it is, then replacements by (seed, step, row, attempt)."""
        position = int(self._sampler[step][row])
        for attempt in itertools.count():
            index = int(self.chosen[position])
            yield index, partial(self.source.__getitem__, index)
            rng = generator_for(self.options.seed, f"instead {row} {attempt}", step)
            position = int(torch.randint(len(self.chosen), (), generator=rng))


class StreamBatches(_BatchDataset):
    """Batches of a stream's lanes: step s comes from lane s mod W of this rank's W."""

    def __init__(self, options: BatchOptions, stream: ShardStream, lanes: int) -> None:
        """`lanes`: of this rank."""
        super().__init__(options)
        self.stream, self.lanes = stream, lanes
        self.places: list[Place] = [START] * lanes
        self._left_out: list[LeftOut] = []
        self._iterators: dict[int, Iterator[Candidate]] = {}

    def __iter__(self) -> Iterator[BatchResult]:
        self._iterators, self._left_out = {}, [LeftOut() for _ in range(self.lanes)]  # from the places again
        return super().__iter__()

    def fill(self, step: int, result: BatchResult) -> None:
        """Make a batch as any other, and put the lane's new place and what it left out into `result`."""
        result.lane = step % self.lanes
        super().fill(step, result)
        result.place = self.places[result.lane]
        result.left_out = self._left_out[result.lane].take()

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """Return whatever the lane brings next."""
        lane = step % self.lanes
        if lane not in self._iterators:
            self._iterators[lane] = self._walk(lane)
        return self._iterators[lane]

    def _walk(self, lane: int) -> Iterator[Candidate]:
        number = self.options.rank * self.lanes + lane
        for item, place in self.stream.lane(number, self.places[lane], self._left_out[lane]):
            self.places[lane] = place
            yield -1, partial(decode_item, item)


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str], key: str) -> NDArray[np.int64]:
    """Return tokens (captions, context) of the captions of picture `key`. Raises `BrokenPicture` if one can't
    be encoded.
    """
    try:
        return tokenizer.encode(captions)
    except UsageError as error:
        raise BrokenPicture(f"{key}: its caption cannot be used: {error}") from error


def decode_item(item: Item) -> CaptionedPicture:
    """Decode what a stream brings. Raises `BrokenPicture`."""
    if isinstance(item, BrokenPicture):
        raise item
    return CaptionedPicture(item.key, item.encoded.decode(), item.captions, item.meta)
