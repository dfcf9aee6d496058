"""An exponential moving average of a module's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["EMA"]


class EMA:
    """Exponential moving average of a module's trainable parameters, with a warm-up for short runs."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards `module` after `step` steps; the decay is min(decay, (1 + step) / (10 + step))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = dict(module.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [live[name].detach() for name in self.values], 1 - decay
        )

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give `module` the averaged weights within the block."""
        live = {name: p.detach().clone() for name, p in module.named_parameters() if name in self.values}
        module.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            module.load_state_dict(live, strict=False)
