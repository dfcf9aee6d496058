"""Results on stdout, progress on stderr."""

from __future__ import annotations

import sys
import time
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


class ProgressBar:
    """`progress(stage, done, total)` on stderr: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, note: object = "") -> None:
        """`note`: what stands behind each line, as `str` gives it then; a run's time left, for example."""
        self._note = note
        self._is_terminal = sys.stderr.isatty()
        self._stage, self._printed = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `stage` are done."""
        now = time.monotonic()
        is_new, is_last = stage != self._stage, done >= total
        if not (is_new or is_last or now - self._printed > (0.1 if self._is_terminal else 5.0)):
            return
        if self._is_terminal and is_new and self._stage:
            print(file=sys.stderr)
        count = f" {done}/{total}" if total > 1 else ""
        bar = f" {_bar(done / total)}" if total > 1 else ""
        name = console.escape(stage)
        note = f"; {text}" if (text := str(self._note)) else ""
        print(
            f"\r\x1b[K{name}{bar}{count}{note}" if self._is_terminal else f"{name}{count}{note}",
            file=sys.stderr,
            end="" if self._is_terminal else "\n",
            flush=True,
        )
        self._stage, self._printed = stage, now

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        """End the moving line, so that whatever is printed next, even an error, starts on its own line."""
        if self._is_terminal and self._stage:
            print(file=sys.stderr)
        self._stage = ""
