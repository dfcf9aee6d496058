"""The count of broken pictures in a run, and when they are too many."""

from __future__ import annotations

import logging
import math
from typing import Any

from galip_runtime.errors import QualityGateFailed

from galip.data.batches import Made

__all__ = ["ENOUGH", "Tally"]

ENOUGH = 100
"""Pictures tried before the share of broken ones counts."""
CERTAIN = 5.0
"""Standard deviations above the allowed number that chance doesn't reach: the test is made at every step."""
SHOWN = 5

_log = logging.getLogger(__name__)


class Tally:
    """Pictures tried and broken on this rank."""

    def __init__(self, max_broken: float, whole: int | None) -> None:
        """`max_broken`: share allowed; `whole`: pictures there are, None for a stream."""
        self.max_broken, self.whole = max_broken, whole
        self.tried = self.broken = 0
        self._known: set[int] = set()
        self._examples: list[str] = []

    def add(self, made: Made) -> None:
        """Count what making a batch met; new broken ones are told as warnings, the first few.

        Of a set a picture is counted once however often it is met. Raises `QualityGateFailed` when their
        share is above the one allowed: of all pictures, or before that, of at least `ENOUGH` tried, so far
        above it that chance can't be why.
        """
        self.tried += made.tried
        for index, reason in made.broken:
            if index in self._known:
                continue
            if self.whole is not None:
                self._known.add(index)
            self.broken += 1
            if len(self._examples) < SHOWN:
                self._examples.append(reason)
                _log.warning("skipped: %s", reason)
        if self._above_allowed():
            raise self.too_many()

    def _above_allowed(self) -> bool:
        tried = self._tried_of_set()
        if tried == self.whole:
            return self.broken > self.max_broken * tried
        chance = CERTAIN * math.sqrt(self.max_broken * (1 - self.max_broken) * tried)
        return tried >= ENOUGH and self.broken > self.max_broken * tried + chance

    def _tried_of_set(self) -> int:
        return self.tried if self.whole is None else min(self.tried, self.whole)

    @property
    def share(self) -> float:
        """Broken ones among those tried."""
        return self.broken / max(self._tried_of_set(), 1)

    def none_found(self, attempts: int) -> QualityGateFailed:
        """What to raise where one broken picture came after another."""
        return QualityGateFailed(
            f"{attempts} pictures after one another are broken: {'; '.join(self._examples)}. `galip data "
            "check` lists them: repair or remove them."
        )

    def too_many(self) -> QualityGateFailed:
        """What to raise where their share is too large."""
        return QualityGateFailed(
            f"{self.broken} of {self._tried_of_set()} pictures tried are broken, {self.share:.1%}; at most "
            f"{self.max_broken:.1%} may be. The first: {'; '.join(self._examples)}. `galip data check` "
            "lists them: repair or remove them, or allow more with --max-broken."
        )

    def state(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "tried": self.tried,
            "broken": self.broken,
            "known": sorted(self._known),
            "examples": list(self._examples),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.tried, self.broken = int(state["tried"]), int(state["broken"])
        self._known, self._examples = set(state["known"]), list(state["examples"])
