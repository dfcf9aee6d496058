"""What lies in a data set and is not used: how many of each kind, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

__all__ = ["LeftOut"]

MAX_EXAMPLES = 3
MAX_EXAMPLE = 120
"""Characters of an example."""


class LeftOut(Counter[str]):
    """Numbers by kind, and the first few examples of each."""

    def __init__(
        self, counts: Iterable[str] | dict[str, int] = (), examples: dict[str, list[str]] | None = None
    ) -> None:
        super().__init__(counts)
        self.examples = {kind: list(listed) for kind, listed in (examples or {}).items()}

    def add(self, kind: str, example: str) -> None:
        """Count one thing."""
        self[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(example if len(example) <= MAX_EXAMPLE else f"{example[: MAX_EXAMPLE - 1]}…")

    def add_all(self, other: LeftOut) -> None:
        """Count what `other` has, too."""
        self.update(other)
        for kind, examples in other.examples.items():
            own = self.examples.setdefault(kind, [])
            own += examples[: MAX_EXAMPLES - len(own)]

    def take(self) -> LeftOut:
        """Return what was counted, and begin again with nothing."""
        taken = LeftOut(*self.state())
        self.clear()
        self.examples = {}
        return taken

    def state(self) -> list[dict[str, Any]]:
        """Return the arguments of an equal one: plain numbers, strings and lists."""
        return [dict(self), {kind: list(listed) for kind, listed in self.examples.items()}]

    def lines(self) -> list[str]:
        """Return a line for each kind, for a terminal or a log."""
        return [f"left out: {count:,} {kind}{self._listed(kind)}" for kind, count in sorted(self.items())]

    def _listed(self, kind: str) -> str:
        examples = self.examples.get(kind, [])
        more = ", …" if self[kind] > len(examples) else ""
        return f" ({', '.join(examples)}{more})" if examples else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), tuple(self.state()))
