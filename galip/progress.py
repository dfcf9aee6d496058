"""The one type of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "no_progress"]

Progress = Callable[[str, int, int], object]
"""Called as `progress(stage, done, total)` during a stage; `total` is 1 where there is nothing to count."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
