"""Detection of a training that has collapsed although its losses are finite."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from galip_runtime.errors import QualityGateFailed
from torch import Tensor

__all__ = ["CollapseDetector"]


class CollapseDetector:
    """The discriminator's hinge loss and the pictures' spread over the last `HISTORY` steps."""

    HISTORY = 200  # steps
    THRESHOLD = 1e-3

    def __init__(self) -> None:
        self.hinge: deque[Tensor] = deque(maxlen=self.HISTORY)
        self.spread: deque[Tensor] = deque(maxlen=self.HISTORY)

    def add_hinge(self, loss: Tensor) -> None:
        """Record the discriminator's loss in a step. Scalar."""
        self.hinge.append(loss.detach())

    def add_spread(self, fake: Tensor) -> None:
        """Record how far the generated pictures (N, 3, H, W) of a step differ."""
        if len(fake) > 1:  # a single picture has no spread
            self.spread.append(fake.detach().std(dim=0).mean())

    def check(self) -> None:
        """Raise `QualityGateFailed` if the losses have collapsed over the last `HISTORY` steps."""
        if self._is_zero(self.hinge):
            raise QualityGateFailed(
                "the discriminator has won: its loss has been zero for "
                f"{self.HISTORY} steps and the generator no longer learns. The last good state "
                "is kept; resume with a lower --lr-d"
            )
        if self._is_zero(self.spread):
            raise QualityGateFailed(
                "the generator has collapsed: all pictures of a batch are the same. The last good "
                "state is kept; resume with a lower --lr-g"
            )

    def _is_zero(self, history: deque[Tensor]) -> bool:
        return len(history) == self.HISTORY and float(torch.stack([*history]).mean()) < self.THRESHOLD

    def restore(self, hinge: Sequence[float], spread: Sequence[float], device: torch.device) -> None:
        """Continue from saved numbers."""
        for history, values in ((self.hinge, hinge), (self.spread, spread)):
            history.clear()
            history.extend(torch.tensor(value, device=device) for value in values)
