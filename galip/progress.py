"""The one type of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "no_progress"]

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)` while `stage` is at work; `total` 1: nothing to count."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
