"""What of the data a run doesn't use, said in its log."""

from __future__ import annotations

from collections.abc import Callable

from lightning_fabric import Fabric

from galip.data.left_out import LeftOut
from galip.data.loader import TrainingLoader
from galip.train.fabric import gather_objects

__all__ = ["LeftOutLog"]


class LeftOutLog:
    """Says what is left out, and again when a stream has come to more of it."""

    def __init__(self, loader: TrainingLoader, fabric: Fabric, echo: Callable[[str], None]) -> None:
        self._loader, self._fabric, self._echo = loader, fabric, echo
        self._reported = LeftOut()

    def report(self) -> None:
        """Say what all processes have left out so far, unless that was said. Every process calls this."""
        total = LeftOut(*self._loader.left_out.state())
        for part in gather_objects(self._fabric, self._loader.left_out_in_stream):
            total.add_all(part)
        if total != self._reported:
            for line in total.lines():
                self._echo(line)
        self._reported = total
