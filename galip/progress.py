"""The type of the callbacks that report progress."""

from collections.abc import Callable

__all__ = ["Count", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in all."""

Count = Callable[[int, int], None]
"""Called with how much of one thing is done, and how much there is in all."""
