"""The count of broken pictures in a run, and when there are too many."""

from __future__ import annotations

import logging
import math
from typing import Any

from galip_runtime.errors import QualityGateFailed

from galip.data.batches import BatchResult

__all__ = ["ENOUGH", "BrokenPictureCounter"]

ENOUGH = 100
"""Pictures tried before the share of broken ones counts."""
CERTAIN = 5.0
"""Standard deviations above the allowed number that chance doesn't reach: the test is made at every step."""
MAX_EXAMPLES = 5

_log = logging.getLogger(__name__)


class BrokenPictureCounter:
    """Pictures tried and broken on this rank."""

    def __init__(self, max_broken: float, total: int | None) -> None:
        """`max_broken`: share allowed; `total`: pictures in the set, None for a stream."""
        self.max_broken, self.total = max_broken, total
        self.tried = self.broken = 0
        self._known: set[int] = set()
        self._examples: list[str] = []

    def add(self, result: BatchResult) -> None:
        """Count what making a batch met, and warn of the first few that are broken.

        A picture of a set is counted once however often it is met. Raises `QualityGateFailed` if the share of
        broken ones is above the allowed one: of all pictures, or, before all were tried, of at least `ENOUGH`
        and so far above it that it can't be by chance.
        """
        self.tried += result.tried
        for index, reason in result.broken:
            if index in self._known:
                continue
            if self.total is not None:
                self._known.add(index)
            self.broken += 1
            if len(self._examples) < MAX_EXAMPLES:
                self._examples.append(reason)
                _log.warning("skipped: %s", reason)
        if self._is_above_allowed():
            raise self.too_many()

    def _is_above_allowed(self) -> bool:
        tried = self._tried_of_set()
        if tried == self.total:
            return self.broken > self.max_broken * tried
        chance = CERTAIN * math.sqrt(self.max_broken * (1 - self.max_broken) * tried)
        return tried >= ENOUGH and self.broken > self.max_broken * tried + chance

    def _tried_of_set(self) -> int:
        return self.tried if self.total is None else min(self.tried, self.total)

    @property
    def share(self) -> float:
        """Share of broken pictures among those tried."""
        return self.broken / max(self._tried_of_set(), 1)

    def all_broken(self, attempts: int) -> QualityGateFailed:
        """Return the error for broken pictures one after another."""
        return QualityGateFailed(
            f"{attempts} pictures in a row are broken: {'; '.join(self._examples)}. `galip data check` lists "
            "them: repair or remove them."
        )

    def too_many(self) -> QualityGateFailed:
        """Return the error for too large a share."""
        return QualityGateFailed(
            f"{self.broken} of {self._tried_of_set()} pictures tried are broken, {self.share:.1%}; at most "
            f"{self.max_broken:.1%} may be. The first: {'; '.join(self._examples)}. `galip data check` "
            "lists them: repair or remove them, or allow more with --max-broken."
        )

    def state(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists."""
        return {
            "tried": self.tried,
            "broken": self.broken,
            "known": sorted(self._known),
            "examples": list(self._examples),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.tried, self.broken = int(state["tried"]), int(state["broken"])
        self._known, self._examples = set(state["known"]), list(state["examples"])
