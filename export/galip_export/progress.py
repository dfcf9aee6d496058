"""Progress of an export: one stage after another, each of which says how many steps it has."""

from __future__ import annotations

from galip.progress import Progress

__all__ = ["Stage"]


class Stage:
    """One stage: it reports that it begins, and each step of it that is done."""

    def __init__(self, progress: Progress, name: str, steps: int = 1) -> None:
        self._progress, self._name, self._steps, self._done = progress, name, steps, 0
        progress(name, 0, steps)

    def advance(self) -> None:
        """Report one more step. A stage with more steps than it said grows: a miscount fails nothing."""
        self._done += 1
        self._steps = max(self._steps, self._done)
        self._progress(self._name, self._done, self._steps)
