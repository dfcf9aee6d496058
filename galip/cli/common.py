"""What several commands share: options, progress on stderr, JSON on stdout."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime import console

__all__ = ["Bundle", "Device", "Json", "Precision", "Progress", "Threads", "emit"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Bundle = Annotated[
    Path | None,
    typer.Option(
        help="Bundle folder; without it the shipped model's, exported on first use.", show_default=False
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda (or cuda:1, …), tensorrt or openvino; but for auto, that one or an error."
    ),
]
Precision = Annotated[str, typer.Option(help="auto, or one that the bundle has.")]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads; all that this process may use if not given.", show_default=False),
]


def emit(result: dict[str, Any], as_json: bool, *lines: str, is_report: bool = False) -> None:
    """Print `result` as JSON, or `lines`, on stdout. `is_report`: the lines only say what was done."""
    if as_json:
        console.result(*console.json_lines(result))
    elif is_report:
        console.report(*lines)
    else:
        console.result(*lines)


_BAR = 24
"""Characters of a progress bar."""


def _bar(share: float) -> str:
    filled = round(_BAR * min(share, 1.0))
    return "━" * filled + "╌" * (_BAR - filled)


class Progress:
    """`progress(what, done, total)` on stderr: a line with a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._stage, self._printed = "", 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of stage `what` are done."""
        now = time.monotonic()
        new_stage, finished = what != self._stage, done >= total
        if not new_stage and not (finished or now - self._printed > (0.1 if self._live else 5.0)):
            return
        if self._live and new_stage and self._stage:
            print(file=sys.stderr)
        count = f" {done}/{total}" if total > 1 else ""
        bar = f" {_bar(done / total)}" if total > 1 else ""
        shown = console.escape(what)
        print(
            f"\r\x1b[K{shown}{bar}{count}" if self._live else f"{shown}{count}",
            file=sys.stderr,
            end="" if self._live else "\n",
            flush=True,
        )
        self._stage, self._printed = what, now

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        """End the moving line, so that what comes next, an error too, has its own."""
        if self._live and self._stage:
            print(file=sys.stderr)
        self._stage = ""
