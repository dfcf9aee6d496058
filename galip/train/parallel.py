"""Several processes on one training step (started by `torchrun`): each takes a part of every batch.

Alone, all of this does nothing. Every process draws the same random numbers for the whole batch and keeps
its rows, so that a run does the same on one process and on several, up to rounding and to whose sentence a
mismatched pair gets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from galip_runtime.errors import UsageError
from torch import Tensor, nn

__all__ = ["any_process", "average_gradients", "check_batch", "is_lead", "my_rows", "start"]


def start() -> None:
    """Join the processes that torchrun started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=2))  # the first may have to prepare


def check_batch(size: int) -> None:
    """Raises `UsageError` unless `size` pictures make equal parts of at least 2 (mismatched pairs)."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if size % processes or size // processes < 2:
        raise UsageError(
            f"batch_size is {size}, which {processes} processes can't share; choose a multiple of "
            f"{processes}, {2 * processes} or more"
        )


def is_lead() -> bool:
    """Whether this is the process that writes and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def my_rows(batch: Tensor) -> Tensor:
    """The rows of a batch (N, …) that are this process's."""
    return batch[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else batch


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def any_process(flag: bool) -> bool:
    """Whether any process says so."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags)
    return bool(flags > 0)
