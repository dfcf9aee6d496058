"""The types of callbacks that report progress."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Count", "Progress", "no_progress"]

Progress = Callable[[str, int, int], object]
"""Called as `progress(stage, done, total)` during a stage; `total` is 1 if there is nothing to count."""

Count = Callable[[int, int], object]
"""Called as `count(done, total)`."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
