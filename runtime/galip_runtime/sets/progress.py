"""Progress of a set on stderr: share, pictures a second, time left."""

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import galip_runtime
from galip_runtime import console

__all__ = ["SetProgress", "duration"]

_ON_TERMINAL, _ELSEWHERE = 0.5, 10.0
"""Seconds between two lines."""
_WINDOW = 60.0
"""Seconds over which the rate is measured."""


class SetProgress:
    """Reports how far a set is: on a terminal in one line, elsewhere in a line every ten seconds."""

    def __init__(self, *, silent: bool = False) -> None:
        """`silent`: print nothing, and issue what is worth a note as a warning."""
        self._silent = silent
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._printed = time.monotonic()  # reading few prompts says nothing
        self._is_open = False
        self._total = self._done = 0
        self._marks: deque[tuple[float, int]] = deque()

    def reading(self, pictures: int) -> None:
        """Say how many pictures the prompts read so far will give."""
        self._print(f"reading prompts: {pictures:,} pictures so far")

    def start(self, total: int, done: int) -> None:
        """Begin with `done` of `total` pictures there."""
        self._total, self._done, self._printed = total, done, -float("inf")
        self._marks = deque([(time.monotonic(), done)])

    def add(self, pictures: int) -> None:
        """Count generated pictures; less than 0 for those that were lost with a worker."""
        self._done += pictures
        now = time.monotonic()
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and self._marks[1][0] < now - _WINDOW:
            self._marks.popleft()
        self._print(self._line(now), is_last=self._done >= self._total)

    def note_once(self) -> Callable[[str], None]:
        """Return what prints the first text that it is called with, and no other."""
        noted: list[str] = []

        def note(text: str) -> None:
            if not noted:
                noted.append(text)
                self._end_line()
                if self._silent:
                    warnings.warn(text, galip_runtime.PromptCut, stacklevel=2)
                else:
                    console.message(text)

        return note

    def _line(self, now: float) -> str:
        began, before = self._marks[0]
        rate = (self._done - before) / (now - began) if now > began else 0.0
        line = f"{self._done:,} of {self._total:,} pictures, {self._done / max(self._total, 1):.1%}"
        if rate > 0:
            line += f", {rate:,.1f} pictures/s, {duration((self._total - self._done) / rate)} left"
        return line

    def _print(self, line: str, *, is_last: bool = False) -> None:
        now = time.monotonic()
        pause = _ON_TERMINAL if self._is_terminal else _ELSEWHERE
        if self._silent or (now - self._printed < pause and not is_last):
            return
        self._printed = now
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._is_open = True
        else:
            console.message(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the moving line."""
        self._end_line()

    def _end_line(self) -> None:
        if self._is_open:
            sys.stderr.write("\n")
            self._is_open = False


def duration(seconds: float) -> str:
    """Return a time as two units: `3 h 20 min`."""
    whole = round(seconds)
    for name, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {smaller}"
    return f"{whole} s"
