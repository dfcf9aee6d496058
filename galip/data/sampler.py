"""Which pictures a step gets and which random numbers: functions of seed, stream and step alone."""

from __future__ import annotations

import numpy as np
import torch
from galip_runtime.errors import UsageError
from torch import Tensor

__all__ = ["BatchSampler", "generator_for"]


def generator_for(seed: int, stream: str, step: int) -> torch.Generator:
    """Return a generator that depends on (seed, stream, step) alone, so a resumed run samples the same."""
    words = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


class BatchSampler:
    """The pictures of each step: every epoch has all of them once, shuffled by (seed, epoch)."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < batch_size:
            raise UsageError(f"{count} pictures are fewer than one batch of {batch_size}; lower --batch-size")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old >= epoch - 1}
            self._orders[epoch] = torch.randperm(
                self.count, generator=generator_for(self.seed, "order", epoch)
            )
        return self._orders[epoch]

    def __getitem__(self, step: int) -> Tensor:
        """Return the indices (batch_size) of step `step`, counted from 0."""
        position = step * self.batch_size
        epoch, start = divmod(position, self.count)
        indices = self._order(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(indices)
        return torch.cat([indices, self._order(epoch + 1)[:missing]]) if missing else indices
