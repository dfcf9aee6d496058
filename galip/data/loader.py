"""Training batches of any layout: the same for any number of workers and, except for streams, of ranks."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galip_runtime.errors import UsageError
from galip_runtime.tokenizer import MAX_PROMPT_LENGTH, Tokenizer
from numpy.typing import NDArray

from galip.data.batches import (
    ATTEMPTS,
    Batch,
    BatchOptions,
    BatchResult,
    SourceBatches,
    StreamBatches,
    decode_item,
)
from galip.data.broken_pictures import BrokenPictureCounter
from galip.data.captioned import CaptionedPicture
from galip.data.crop import CROPS, to_square
from galip.data.decode import MAX_BROKEN, BrokenPicture
from galip.data.layouts.shards import count_pictures, is_streamed, left_beside, shards_of_split
from galip.data.left_out import LeftOut
from galip.data.sources import choose, open_source, recognise
from galip.data.stream import START, Place, ShardStream
from galip.data.workers import check_shared_memory, iterate, next_result
from galip.differences import describe_differences

__all__ = ["Batch", "LoaderConfig", "TrainingLoader"]

SEARCHED = 2_000
"""Pictures that `real_pictures` looks through at most."""


@dataclass(frozen=True)
class LoaderConfig:
    """What to read, and how to make batches of it."""

    data: str
    layout: str = "auto"
    split: str = "train"
    batch_size: int = 32
    """Of all ranks together."""
    seed: int = 0
    workers: int = 0
    """Processes that decode, for each rank; 0: the training process itself."""
    exclude: tuple[str, ...] = ()
    crop: str = "exact"
    """exact: resized and centre-cropped only if it isn't S x S; random: as in the released code."""
    flip: bool = False
    """Mirror half of the pictures."""
    caption_dropout: float = 0.0
    """Share of captions replaced by the empty one."""
    max_broken: float = MAX_BROKEN
    """Share of broken pictures above which the run stops."""
    stream: str = "auto"
    """Shards only: auto streams above 2 GiB of them, yes, no."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value out of range."""
        for name, choices in (("crop", CROPS), ("stream", ("auto", "yes", "no"))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; there are {', '.join(choices)}")
        for name in ("caption_dropout", "max_broken"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it is a share, 0 to 1")
        if self.workers < 0 or self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size} and workers {self.workers}; at least 1 and 0")


class TrainingLoader:
    """One rank's batches, step after step, with exact resume.

    `left_out`: what lies in the data and is not used; of a stream what lies beside its shards, while
    `left_out_in_stream` is what this rank has met within them, each shard once. The latter is complete when
    the first epoch is.
    """

    def __init__(
        self, config: LoaderConfig, *, size: int, tokenizer: Tokenizer, rank: int = 0, world_size: int = 1
    ) -> None:
        """Open pictures of `size` pixels a side.

        Raises `UsageError` for a batch that ranks can't share or that is larger than the data, and what
        `open_source` raises.
        """
        if config.batch_size % world_size:
            raise UsageError(
                f"a batch of {config.batch_size} cannot be shared by {world_size} processes; "
                "make it a multiple of them"
            )
        self.config = config
        self._options = BatchOptions(
            size,
            tokenizer,
            config.batch_size,
            config.seed,
            rank,
            world_size,
            config.crop,
            config.flip,
            config.caption_dropout,
        )
        path, lanes = Path(config.data), max(config.workers, 1)
        self._layout = recognise(path, config.layout)
        self._batches: SourceBatches | StreamBatches
        if is_streamed(path, config.split, self._layout, config.stream):
            shards = shards_of_split(path, config.split)
            stream = ShardStream(shards, world_size * lanes, config.seed, config.exclude)
            self._batches = StreamBatches(self._options, stream, lanes)
            self._count, total = count_pictures(path, config.split), None
            self.left_out = left_beside(path, config.split)
        else:
            source = open_source(path, config.split, self._layout)
            self._batches = SourceBatches(
                self._options, source, torch.tensor(choose(source, config.exclude, path))
            )
            self._count = total = len(self._batches.chosen)
            self.left_out = source.left_out
        self._places: list[Place] = [START] * lanes
        self.left_out_in_stream = LeftOut()
        self._broken = BrokenPictureCounter(config.max_broken, total)
        self._next = 0
        self._iterator: Iterator[BatchResult] | None = None

    def __len__(self) -> int:
        """Pictures of the split that are used; 0 for a stream without a record beside its shards."""
        return self._count

    def describe(self) -> str:
        """Return one line for a log: pictures, captions, layout."""
        if isinstance(self._batches, StreamBatches):
            stream = self._batches.stream
            count = f"{self._count:,}" if self._count else "an unknown number of"
            return f"{count} pictures in {len(stream.shards)} shards, streamed (readers: {stream.lanes})"
        counts = [len(captions) for captions in itertools.islice(self._captions(), 100)]
        mean = f", {sum(counts) / len(counts):.1f} captions each" if counts else ""
        return f"{self._count:,} pictures (layout {self._layout}, {self.config.split}){mean}"

    def sample_captions(self, count: int) -> list[str]:
        """Return the first pictures' first captions that the tokenizer takes."""
        firsts = (captions[0] for captions in self._captions())
        return list(itertools.islice((text for text in firsts if len(text) <= MAX_PROMPT_LENGTH), count))

    def real_pictures(self, captions: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """Return a picture uint8 (S, S, 3) of each of `captions` that one of the first pictures has, with it.

        They are cropped in the middle, whatever `crop` is.
        """
        found = dict[str, NDArray[np.uint8]]()
        for texts, load in itertools.islice(self._pictures(), SEARCHED):
            for caption in [caption for caption in captions if caption in texts and caption not in found]:
                with contextlib.suppress(BrokenPicture):
                    square = to_square(load().picture, self._options.size, "exact")
                    found[caption] = square.transpose(1, 2, 0)
            if len(found) == len(set(captions)):
                break
        return {caption: found[caption] for caption in captions if caption in found}

    def _captions(self) -> Iterator[tuple[str, ...]]:
        """Yield the captions of the pictures that have any, in order."""
        return (captions for captions, _ in self._pictures())

    def _pictures(self) -> Iterator[tuple[tuple[str, ...], Callable[[], CaptionedPicture]]]:
        """Yield the captions of the pictures that have any, in order, each with how to load the picture."""
        if isinstance(self._batches, StreamBatches):
            for item in self._batches.stream.in_order():
                if not isinstance(item, BrokenPicture):
                    yield item.captions, partial(decode_item, item)
            return
        source = self._batches.source
        for index in self._batches.chosen.tolist():
            with contextlib.suppress(BrokenPicture):  # it is counted when its turn comes
                yield source.captions(index), partial(source.__getitem__, index)

    def batch(self, step: int) -> Batch:
        """Return this rank's rows of step `step`; steps are asked for one after the other.

        Raises `QualityGateFailed` if too many pictures are broken, `FileRefused` if the data has changed,
        `UsageError` if a stream has nothing, `LoaderFailed` if the workers fail.
        """
        assert step == self._next, f"step {step} was asked for, {self._next} is next"
        if self._iterator is None:
            self._batches.first = step
            if isinstance(self._batches, StreamBatches):
                self._batches.places = list(self._places)
            check_shared_memory(self._options, self.config.workers)
            self._iterator = iterate(self._batches, self.config.workers)
        result = next_result(self._iterator, self.config.workers)
        self._broken.add(result)
        if result.error:
            raise result.error
        if result.batch is None:
            raise self._broken.all_broken(ATTEMPTS)
        self._places[result.lane] = result.place
        self.left_out_in_stream.add_all(result.left_out)
        self._next = step + 1
        return result.batch

    @property
    def broken(self) -> int:
        """Broken pictures met so far on this rank; each counts once, but in a stream each time."""
        return self._broken.broken

    def state(self) -> dict[str, Any]:
        """Return where this rank stands after its last batch: plain numbers, strings and lists."""
        return {
            "data": self._identity(),
            "places": [list(place) for place in self._places],
            "left_out": self.left_out_in_stream.state(),
            **self._broken.state(),
        }

    def _identity(self) -> dict[str, Any]:
        """Return what has to be the same for a state to be restored."""
        if isinstance(self._batches, SourceBatches):
            return {"kind": "pictures", "pictures": self._count}
        stream = self._batches.stream
        return {
            "kind": "stream",
            "shards": len(stream.shards),
            "named": hashlib.sha256("\n".join(path.name for path in stream.shards).encode()).hexdigest()[:8],
            "readers": stream.lanes,
            "rank": self._options.rank,
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Continue with batch `step` as the loader that returned `state` would have.

        Raises `UsageError` if the data, or a stream's number of ranks or workers, differs.
        """
        now = self._identity()
        if changes := describe_differences(state["data"], now, "now"):
            raise UsageError(
                f"the run began with other data or processes: {changes}; go on with the same data, --workers "
                "and number of processes, or begin a new run (--init takes the weights)"
            )
        self.close()
        if now["kind"] == "stream":
            self._places = [(place[0], place[1], place[2], place[3]) for place in state["places"]]
        self.left_out_in_stream = LeftOut(*state.get("left_out", ()))  # older states have none
        self._broken.restore(state)
        self._next = step

    def close(self) -> None:
        """End the workers."""
        self._iterator = None
