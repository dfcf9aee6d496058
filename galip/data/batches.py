"""Batches in the making: the picture of a row, what is drawn for it, what becomes of broken ones.

Everything drawn depends on (seed, step, row of the whole batch) alone, so any number of ranks and workers
sees the same. Shapes: N rows of this rank, S picture side, L tokens.
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
from galip.data.order import Batches, generator_for
from galip.data.stream import START, Item, Place, ShardStream

__all__ = ["ATTEMPTS", "Batch", "Drawing", "Made", "SourceBatches", "StreamBatches"]

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
    """As drawn; "" where the caption was dropped."""


@dataclass(frozen=True)
class Drawing:
    """What a row is made with: plain values, the same in all processes."""

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
class Made:
    """A batch, or why there is none, and what was met on the way. Passed between processes."""

    batch: Batch | None = None
    error: GalipError | None = None
    tried: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)
    """(index in the source, or -1 in a stream; what is wrong)"""
    lane: int = 0
    place: Place = START
    """Where a stream's lane stands after this batch."""


Candidate = tuple[int, Callable[[], CaptionedPicture]]


class _EndlessBatches(IterableDataset[Made]):
    """Step after step from `first` on; of W workers each makes every W-th."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self.first = drawing, 0

    def __iter__(self) -> Iterator[Made]:
        worker = get_worker_info()
        start, every = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(self.first + start, every):
            made = Made()
            try:
                self.make(step, made)
            except GalipError as error:  # raised again by the loader, with its own type and words
                made.error = error
            yield made
            if made.error:
                return

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """Pictures for a row, best first, without end: each as its number and how to get it."""
        raise NotImplementedError

    def make(self, step: int, made: Made) -> None:
        """Fills in what `made` says about the batch of `step`."""
        d = self.drawing
        rows = range(d.rank, d.batch_size, d.world_size)
        draws = torch.rand(d.batch_size, 5, generator=generator_for(d.seed, "rows", step)).tolist()
        found = [self._row(step, row, draws[row], made) for row in rows]
        if not all(found):
            return
        pictures, tokens, captions = zip(*(each for each in found if each), strict=True)
        made.batch = Batch(
            torch.from_numpy(np.stack(pictures)),
            torch.from_numpy(trim(np.stack(tokens))),
            torch.tensor(rows),
            list(captions),
        )

    def _row(
        self, step: int, row: int, draws: Sequence[float], made: Made
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], str] | None:
        """Picture (3, S, S), tokens (context) and caption; None after too many broken ones."""
        d = self.drawing
        pick, drop, x, y, mirror = draws
        for number, get in itertools.islice(self.candidates(step, row), ATTEMPTS):
            made.tried += 1
            try:
                found = get()
                caption = found.captions[int(pick * len(found.captions))]
                caption = "" if drop < d.caption_dropout else caption
                tokens = self._tokens(caption, found.key)
            except BrokenPicture as error:
                made.broken.append((number, str(error)))
                continue
            return to_square(found.picture, d.size, d.crop, x, y, d.flip and mirror < 0.5), tokens, caption
        return None

    def _tokens(self, caption: str, key: str) -> NDArray[np.int64]:
        try:
            row: NDArray[np.int64] = self.drawing.tokenizer.encode(caption)[0]
            return row
        except UsageError as error:
            raise BrokenPicture(f"{key}: its caption cannot be used: {error}") from error


class SourceBatches(_EndlessBatches):
    """Of pictures that can be asked for by number: `chosen` ones, each once an epoch."""

    def __init__(self, drawing: Drawing, source: Source, chosen: Tensor) -> None:
        """`chosen` int64 (count). Raises `UsageError` where they are fewer than a batch."""
        super().__init__(drawing)
        self.source, self.chosen = source, chosen
        self._order = Batches(len(chosen), drawing.batch_size, drawing.seed)

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """The one whose turn it is; for a broken one another, drawn by (seed, step, row, attempt)."""
        position = int(self._order[step][row])
        for attempt in itertools.count():
            index = int(self.chosen[position])
            yield index, partial(self.source.__getitem__, index)
            rng = generator_for(self.drawing.seed, f"instead {row} {attempt}", step)
            position = int(torch.randint(len(self.chosen), (), generator=rng))


class StreamBatches(_EndlessBatches):
    """Of a stream's lanes: step s is made of lane s mod W of this rank's W."""

    def __init__(self, drawing: Drawing, stream: ShardStream, lanes: int) -> None:
        """`lanes`: of this rank."""
        super().__init__(drawing)
        self.stream, self.lanes = stream, lanes
        self.places: list[Place] = [START] * lanes
        self._at: dict[int, Iterator[Candidate]] = {}

    def __iter__(self) -> Iterator[Made]:
        self._at = {}  # from the places anew
        return super().__iter__()

    def make(self, step: int, made: Made) -> None:
        """As any batch; `made` says where the lane stands then, too."""
        made.lane = step % self.lanes
        super().make(step, made)
        made.place = self.places[made.lane]

    def candidates(self, step: int, row: int) -> Iterator[Candidate]:
        """Whatever the lane brings next."""
        lane = step % self.lanes
        if lane not in self._at:
            self._at[lane] = self._walk(lane)
        return self._at[lane]

    def _walk(self, lane: int) -> Iterator[Candidate]:
        number = self.drawing.rank * self.lanes + lane
        for item, place in self.stream.lane(number, self.places[lane]):
            self.places[lane] = place
            yield -1, partial(_captioned, item)


def _captioned(item: Item) -> CaptionedPicture:
    if isinstance(item, BrokenPicture):
        raise item
    return CaptionedPicture(item.key, item.encoded.decode(), item.captions, item.meta)
