"""Training batches of any layout: the same whatever the number of workers and, but for streams, of ranks."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from galip_runtime.errors import UsageError
from galip_runtime.tokenizer import MAX_PROMPT_LENGTH, Tokenizer
from torch.utils.data import DataLoader

from galip.data.batches import ATTEMPTS, Batch, Drawing, Made, SourceBatches, StreamBatches
from galip.data.captioned import Source
from galip.data.conditions import excluded
from galip.data.crop import CROPS
from galip.data.decode import MAX_BROKEN, BrokenPicture
from galip.data.layouts.shards import count_pictures, shards_of_split
from galip.data.sources import open_source, recognise
from galip.data.stream import START, Place, ShardStream
from galip.data.tally import Tally

__all__ = ["PATIENCE", "Batch", "LoaderConfig", "LoaderFailed", "TrainingLoader"]

LONGEST_WAIT = 300.0
"""Seconds that a batch may take its worker; what takes longer hangs, on a dead disk or for lack of memory."""
SHARED_MEMORY = Path("/dev/shm")
_AHEAD = 2  # batches that each worker prepares before they are asked for, as DataLoader has it

PATIENCE = 1.0
"""Seconds after a stop signal in which others are taken for copies: a terminal, a scheduler and torchrun may
each send one to every process."""
STREAM_FROM = 2 * 2**30
"""Bytes of shards above which `stream="auto"` streams."""


@dataclass(frozen=True)
class LoaderConfig:
    """What is read, and how a batch is made of it."""

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
    """exact: resized only where it isn't S x S, the middle is taken; random: as the released code."""
    flip: bool = False
    """Half of the pictures mirrored."""
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


class LoaderFailed(UsageError):
    """The workers that read the pictures cannot go on; the model is as it was after the last step."""


class TrainingLoader:
    """One rank's batches, step after step, with exact resume."""

    def __init__(
        self, config: LoaderConfig, *, size: int, tokenizer: Tokenizer, rank: int = 0, world_size: int = 1
    ) -> None:
        """Pictures of `size` pixels a side, and tokens.

        Raises `UsageError` for a batch that ranks can't share or that is larger than the data, and what
        `open_source` raises.
        """
        if config.batch_size % world_size:
            raise UsageError(
                f"a batch of {config.batch_size} cannot be shared by {world_size} processes; "
                "make it a multiple of them"
            )
        self.config = config
        self._drawing = Drawing(
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
        if self._streams(path):
            shards = shards_of_split(path, config.split)
            stream = ShardStream(shards, world_size * lanes, config.seed, config.exclude)
            self._batches = StreamBatches(self._drawing, stream, lanes)
            self._count, whole = count_pictures(path, config.split), None
        else:
            source = open_source(path, config.split, self._layout)
            self._batches = SourceBatches(self._drawing, source, _chosen(source, config))
            self._count = whole = len(self._batches.chosen)
        self._places: list[Place] = [START] * lanes
        self._tally = Tally(config.max_broken, whole)
        self._next = 0
        self._iterator: Iterator[Made] | None = None

    def _streams(self, path: Path) -> bool:
        config = self.config
        if self._layout != "shards":
            if config.stream == "yes":
                raise UsageError(f"{path} is of layout {self._layout}; only shards can be streamed")
            return False
        if config.stream != "auto":
            return config.stream == "yes"
        return sum(shard.stat().st_size for shard in shards_of_split(path, config.split)) > STREAM_FROM

    def __len__(self) -> int:
        """Pictures of the split that are used; of a stream 0 where no record beside the shards tells."""
        return self._count

    def describe(self) -> str:
        """One line for a log: pictures, captions, layout."""
        if isinstance(self._batches, StreamBatches):
            stream = self._batches.stream
            count = f"{self._count:,}" if self._count else "an unknown number of"
            return f"{count} pictures in {len(stream.shards)} shards, streamed (readers: {stream.lanes})"
        counts = [len(captions) for captions in self._some_captions(100)]
        mean = f", {sum(counts) / len(counts):.1f} captions each" if counts else ""
        return f"{self._count:,} pictures (layout {self._layout}, {self.config.split}){mean}"

    def sample_captions(self, count: int) -> list[str]:
        """The first pictures' first captions that the tokenizer takes."""
        firsts = (captions[0] for captions in self._all_captions())
        return list(itertools.islice((text for text in firsts if len(text) <= MAX_PROMPT_LENGTH), count))

    def _some_captions(self, count: int) -> list[tuple[str, ...]]:
        """Of the first pictures that have any."""
        return list(itertools.islice(self._all_captions(), count))

    def _all_captions(self) -> Iterator[tuple[str, ...]]:
        if isinstance(self._batches, StreamBatches):
            for item in self._batches.stream.in_order():
                if not isinstance(item, BrokenPicture):
                    yield item.captions
            return
        for index in self._batches.chosen.tolist():
            with contextlib.suppress(BrokenPicture):  # it is counted when its turn comes
                yield self._batches.source.captions(index)

    def batch(self, step: int) -> Batch:
        """The rows of step `step` that are this rank's; steps are asked for one after the other.

        Raises `QualityGateFailed` where too many pictures are broken, `FileRefused` where the data is no
        longer as it was, `UsageError` where a stream has nothing.
        """
        assert step == self._next, f"step {step} was asked for, {self._next} is next"
        if self._iterator is None:
            self._iterator = self._begin(step)
        try:
            made = next(self._iterator)
        # DataLoader's, for a worker that was killed, also in the middle of handing over, and one that hangs
        except (RuntimeError, EOFError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise LoaderFailed(
                f"no batch came from the {self.config.workers} workers ({reason}): one "
                f"was killed, as for lack of memory, or reading took over {LONGEST_WAIT:.0f} s. Fewer "
                "--workers need less memory, --workers 0 none"
            ) from error
        self._tally.add(made)
        if made.error:
            raise made.error
        if made.batch is None:
            raise self._tally.none_found(ATTEMPTS)
        self._places[made.lane] = made.place
        self._next = step + 1
        return made.batch

    def _begin(self, step: int) -> Iterator[Made]:
        self._batches.first = step
        if isinstance(self._batches, StreamBatches):
            self._batches.places = list(self._places)
        workers = self.config.workers
        self._check_shared_memory()
        return iter(
            DataLoader(
                self._batches,
                batch_size=None,
                generator=torch.Generator(),  # else it would draw from the global one
                num_workers=workers,
                timeout=LONGEST_WAIT if workers else 0,
                multiprocessing_context="spawn" if workers else None,  # a fork may not touch CUDA
                worker_init_fn=_outlive_stop_signals,
            )
        )

    def _check_shared_memory(self) -> None:
        """Raises `UsageError` where batches would not fit: workers then wait for ever, without a word."""
        if not self.config.workers or not SHARED_MEMORY.is_dir():
            return
        rows = self._drawing.batch_size // self._drawing.world_size
        needed = self.config.workers * _AHEAD * rows * 3 * self._drawing.size**2
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            raise UsageError(
                f"{SHARED_MEMORY} has {free / 1e6:,.1f} MB free, and {self.config.workers} workers hand over "
                f"batches of {needed / 1e6:,.1f} MB there: use --workers 0, or make it larger (docker run "
                "--shm-size 1g)"
            )

    @property
    def broken(self) -> int:
        """Broken pictures met so far on this rank, each counted once (in a stream: each time)."""
        return self._tally.broken

    def state(self) -> dict[str, Any]:
        """Where this rank stands after the batches handed out: plain numbers, strings and lists."""
        return {
            "data": self._identity(),
            "places": [list(place) for place in self._places],
            **self._tally.state(),
        }

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a state to be taken up."""
        if isinstance(self._batches, SourceBatches):
            return {"kind": "pictures", "pictures": self._count}
        stream = self._batches.stream
        return {
            "kind": "stream",
            "shards": len(stream.shards),
            "named": hashlib.sha256("\n".join(path.name for path in stream.shards).encode()).hexdigest()[:8],
            "readers": stream.lanes,
            "rank": self._drawing.rank,
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go on with batch `step` as the loader that gave `state` would have.

        Raises `UsageError` where the data, or a stream's number of ranks or workers, is another.
        """
        now, then = self._identity(), state["data"]
        if then != now:
            raise UsageError(
                f"the run began with {_listed(then)}, and now it has {_listed(now)}; go on with the "
                "same data, --workers and number of processes, or begin a new run (--init takes the weights)"
            )
        self.close()
        if now["kind"] == "stream":
            self._places = [(place[0], place[1], place[2], place[3]) for place in state["places"]]
        self._tally.restore(state)
        self._next = step

    def close(self) -> None:
        """End the workers."""
        self._iterator = None  # which DataLoader's iterator does when it goes


def _listed(identity: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.items())


def _chosen(source: Source, config: LoaderConfig) -> torch.Tensor:
    """Numbers int64 (count) of the pictures that `exclude` leaves. Raises `UsageError` for none."""
    if not config.exclude:
        return torch.arange(len(source))
    left = [index for index in range(len(source)) if not excluded(source.meta(index), config.exclude)]
    if not left:
        raise UsageError(
            f"{config.data} has no pictures in split {config.split!r} after leaving out "
            f"{list(config.exclude)}; exclude less"
        )
    return torch.tensor(left)


def _outlive_stop_signals(worker: int) -> None:
    """Ctrl-C, and SIGTERM to a whole group, reach the workers too; the run needs them to end its step.

    So SIGINT is ignored, and SIGTERM for `PATIENCE` seconds from the first one on: a later one is from a
    parent that has waited long enough.
    """
    came: list[float] = []

    def patient(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if came[-1] - came[0] > PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the run ends the workers once its state is saved
    signal.signal(signal.SIGTERM, patient)
