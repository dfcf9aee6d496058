"""Results on stdout, progress on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from galip_runtime import console

__all__ = ["ProgressBar", "emit"]


def emit(result: dict[str, Any], as_json: bool, *lines: str, is_report: bool = False) -> None:
    """Print `result` as JSON, or `lines`, on stdout. `is_report`: the lines only say what was done."""
    if as_json:
        console.result(*console.json_lines(result))
    elif is_report:
        console.report(*lines)
    else:
        console.result(*lines)


_WIDTH = 24
"""Characters of a progress bar."""


def _bar(share: float) -> str:
    filled = round(_WIDTH * min(share, 1.0))
    return "━" * filled + "╌" * (_WIDTH - filled)


_TICK = 1.0
"""Seconds."""


class _Clock:
    """Calls `show` with the seconds that have passed, every second, until it is stopped."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show, self._stopped = show, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        seconds = 0
        while not self._stopped.wait(_TICK):
            seconds += 1
            self._show(seconds)

    def stop(self) -> None:
        """Return when `show` will not be called again."""
        self._stopped.set()
        self._thread.join()


def _time_left(seconds: float, done: int, total: int) -> str:
    """Return what is to be said of the time left, if `done` of `total` steps took `seconds`."""
    left = seconds / done * (total - done) if done else 0.0
    if left < 10:
        return ""
    return f", {left:.0f} s left" if left < 100 else f", {left / 60:.0f} min left"


class ProgressBar:
    """`progress(stage, done, total)` on stderr: a bar on a terminal, elsewhere a line every few seconds.

    On a terminal, the seconds are shown of a stage with nothing else to count.
    """

    def __init__(self, note: object = "", *, shows_time_left: bool = False) -> None:
        """`note`: what stands behind each line, as `str` gives it then; a run's time left, for example.

        `shows_time_left`: a stage that counts says how long it will still take, where that is 10 s or more.
        """
        self._note, self._shows_time_left, self._began = note, shows_time_left, 0.0
        self._is_terminal = sys.stderr.isatty()
        self._stage, self._printed = "", 0.0
        self._clock: _Clock | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `stage` are done."""
        now = time.monotonic()
        if done == 0:
            self._began = now
        is_new, is_last = stage != self._stage, done >= total
        if not (is_new or is_last or now - self._printed > (0.1 if self._is_terminal else 5.0)):
            return
        self._stop_clock()
        if self._is_terminal and is_new and self._stage:
            print(file=sys.stderr)
        bar = f" {_bar(done / total)}" if total > 1 and self._is_terminal else ""
        left = _time_left(now - self._began, done, total) if self._shows_time_left else ""
        self._print(stage, f"{bar} {done}/{total}{left}" if total > 1 else "")
        self._stage, self._printed = stage, now
        if self._is_terminal and total == 1 and not is_last:
            self._clock = _Clock(lambda seconds: self._print(stage, f" {seconds} s"))

    def _print(self, stage: str, count: str) -> None:
        note = f"; {text}" if (text := str(self._note)) else ""
        line = f"{console.escape(stage)}{count}{note}"
        print(
            f"\r\x1b[K{line}" if self._is_terminal else line,
            file=sys.stderr,
            end="" if self._is_terminal else "\n",
            flush=True,
        )

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.stop()
            self._clock = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        """End the moving line, so that whatever is printed next, even an error, starts on its own line."""
        self._stop_clock()
        if self._is_terminal and self._stage:
            print(file=sys.stderr)
        self._stage = ""
