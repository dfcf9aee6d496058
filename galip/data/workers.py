"""The processes that make batches beside the training: start, stop signals, and what goes wrong with them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from galip_runtime.errors import UsageError
from torch.utils.data import DataLoader

from galip.data.batches import BatchOptions, BatchResult, SourceBatches, StreamBatches

__all__ = ["PATIENCE", "LoaderFailed", "check_shared_memory", "iterate", "next_result"]

MAX_WAIT = 300.0
"""Seconds that a batch may take its worker. After that it hangs, on a dead disk or for lack of memory."""
SHARED_MEMORY = Path("/dev/shm")
_PREFETCH = 2  # batches that each worker prepares before they are asked for, DataLoader's default

PATIENCE = 1.0
"""Seconds after a stop signal in which further ones count as copies: a terminal, a scheduler and torchrun may
each send one to every process."""


class LoaderFailed(UsageError):
    """The workers that read the pictures cannot go on; the model is as it was after the last step."""


def iterate(batches: SourceBatches | StreamBatches, workers: int) -> Iterator[BatchResult]:
    """Iterate over `batches`, made by `workers` processes, or by this one if there are none.

    The workers end when the iterator is deleted.
    """
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            generator=torch.Generator(),  # otherwise it would sample from the global one
            num_workers=workers,
            timeout=MAX_WAIT if workers else 0,
            multiprocessing_context="spawn" if workers else None,  # a fork may not touch CUDA
            worker_init_fn=_outlive_stop_signals,
        )
    )


def next_result(iterator: Iterator[BatchResult], workers: int) -> BatchResult:
    """Return the next batch. Raises `LoaderFailed` if the workers can't make it."""
    try:
        return next(iterator)
    # DataLoader raises these for a worker that was killed, also while handing over, and for one that hangs
    except (RuntimeError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LoaderFailed(
            f"no batch came from the {workers} workers ({reason}): one was killed, perhaps for lack of "
            f"memory, or reading took over {MAX_WAIT:.0f} s. Fewer --workers need less memory, "
            "--workers 0 none"
        ) from error


def check_shared_memory(options: BatchOptions, workers: int) -> None:
    """Raise `UsageError` if the batches don't fit into shared memory: workers then wait forever, silently."""
    if not workers or not SHARED_MEMORY.is_dir():
        return
    rows = options.batch_size // options.world_size
    required = workers * _PREFETCH * rows * 3 * options.size**2
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < required:
        raise UsageError(
            f"{SHARED_MEMORY} has {free / 1e6:,.1f} MB free, and {workers} workers hand over "
            f"batches of {required / 1e6:,.1f} MB there: use --workers 0, or make it larger (docker run "
            "--shm-size 1g)"
        )


def _outlive_stop_signals(worker: int) -> None:
    """Let a worker outlive Ctrl-C, SIGHUP and SIGTERM to a whole group: the run needs it to end its step.

    SIGINT and SIGHUP are ignored: the run ends the workers once its state is saved. SIGTERM is ignored for
    `PATIENCE` seconds from the first one on: a later one is from a parent that has waited long enough.
    """
    times: list[float] = []

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        times.append(time.monotonic())
        if times[-1] - times[0] > PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
