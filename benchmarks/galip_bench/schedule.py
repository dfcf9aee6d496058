"""How long a run may take, how long it still needs, and what a stop signal does to it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["Schedule", "Stop", "Terminated", "TimeIsUp", "time_limit"]

PATIENCE = 15.0
"""Seconds that a process has to hand over what it measured, before it is killed."""


class Schedule:
    """A run's time: the limit of the whole, and what its phases are expected to take."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock of a run of at most `minutes`."""
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._expected: dict[str, float] = {}
        self._since = clock()

    def left(self) -> float:
        """Return the seconds until the limit; negative after it."""
        return self._end - self._clock()

    @contextlib.contextmanager
    def not_counted(self) -> Iterator[None]:
        """Let the block take as long as it takes: the limit moves."""
        start = self._clock()
        yield
        self._end += self._clock() - start

    def expect(self, **seconds: float) -> None:
        """Say how many seconds phases still need from now on. Other phases keep what they were given."""
        self._expected |= {name: max(0.0, value) for name, value in seconds.items()}
        self._since = self._clock()

    def expected(self) -> float | None:
        """Return the seconds that the run still needs, at most until its limit; None if nobody knows yet."""
        if not self._expected:
            return None
        needed = sum(self._expected.values()) - (self._clock() - self._since)
        return max(0.0, min(needed, self.left()))

    def __str__(self) -> str:
        """Return when the run will be over, for people."""
        seconds = self.expected()
        words = "about" if seconds is not None else "at most"
        seconds = max(0.0, self.left()) if seconds is None else seconds
        time_left = f"{math.ceil(seconds / 5) * 5} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f"{words} {time_left} left"


class Terminated(KeyboardInterrupt):
    """SIGTERM came when there was nothing to report yet."""


class TimeIsUp(KeyboardInterrupt):
    """A step took too long. No `Exception`: libraries catch those and go on."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUp` in the block after `seconds`; its work is lost then.

    There is no limit for infinity, in a thread, and on Windows, which has no timer of this kind.
    """
    has_timer = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not has_timer or seconds == math.inf:
        yield
        return
    previous = signal.signal(signal.SIGALRM, _raise_time_is_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _raise_time_is_up(number: int, frame: FrameType | None) -> None:
    raise TimeIsUp


class Stop:
    """A context manager that turns SIGTERM into the flag `requested`: the run ends with what it has.

    The process that measures is asked to hand over its samples, and killed if it does not.
    """

    def __init__(self) -> None:
        self.requested = False
        self._child: subprocess.Popen[Any] | None = None
        self._raises = False
        self._previous: Any = None

    def __enter__(self) -> Stop:
        is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        if is_default and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    @contextlib.contextmanager
    def raises(self) -> Iterator[None]:
        """Let the signal raise `Terminated` in the block, whose work is lost then."""
        self._raises = True
        try:
            if self.requested:
                raise Terminated
            yield
        finally:
            self._raises = False

    @contextlib.contextmanager
    def hands_over(self, child: subprocess.Popen[Any]) -> Iterator[None]:
        """Let the signal end `child`, which hands over what it has, in the block."""
        self._child = child
        try:
            if self.requested:
                self._end_child()
            yield
        finally:
            self._child = None

    def _end_child(self) -> None:
        if (child := self._child) is not None:
            child.terminate()
            timer = threading.Timer(PATIENCE, child.kill)
            timer.daemon = True
            timer.start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            # not print: the signal may have come in the middle of one, and streams aren't reentrant
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping: what is measured so far is reported\n")
        self.requested = True
        self._end_child()
        if self._raises:
            raise Terminated
