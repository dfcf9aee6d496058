"""Stop signals of a training run: it ends its step, saves and stops, instead of dying in the middle."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

from galip.data.workers import PATIENCE

__all__ = ["StopSignals", "TrainingStopped"]


class TrainingStopped(Exception):
    """A stop signal came, and the run's state is saved."""


class StopSignals:
    """A context manager that turns SIGINT, SIGTERM and SIGHUP into the flag `requested`.

    A second SIGINT, more than `PATIENCE` later, stops at once with KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.requested = False
        self._requested_at = math.inf
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the run outlives its terminal
            self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT and time.monotonic() - self._requested_at > PATIENCE:
                raise KeyboardInterrupt
            return
        self.requested, self._requested_at = True, time.monotonic()
        # not print: the signal may have come in the middle of one, and Python's streams aren't reentrant
        with contextlib.suppress(OSError):  # a full or closed stderr: the state is saved all the same
            os.write(2, b"stopping after this step; Ctrl-C again to stop at once\n")
