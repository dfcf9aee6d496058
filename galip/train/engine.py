"""The engine under a training run: Lightning Fabric, which places modules and keeps precision.

`torchrun` starts the processes, on one node or on several; alone, nothing of this is distributed.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from galip_runtime.errors import ProviderUnavailable, UsageError
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

__all__ = [
    "LEAST_SCALE",
    "FlooredScaler",
    "check_batch",
    "choose_device",
    "make_fabric",
    "processes",
    "whole_batch",
]

LEAST_SCALE = 64.0
"""The loss scale of fp16 training never falls below this: as released, whose scaler is reset at 64."""


class FlooredScaler(torch.amp.GradScaler):
    """A gradient scaler kept at `LEAST_SCALE` or more, where torch's would shrink towards zero."""

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """As torch's, then lifted to the floor."""
        super().update(new_scale)
        if self._scale is not None:
            self._scale.clamp_(min=LEAST_SCALE)


class _Mixed(MixedPrecision):
    """Autocast that leaves inputs as they are: sentence vectors and noise keep their fp32."""

    def convert_input(self, data: Any) -> Any:
        return data


def processes() -> int:
    """How many processes torchrun started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` is CUDA where there is one. Raises `ProviderUnavailable`."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ProviderUnavailable(
            f"PyTorch {torch.__version__} finds no CUDA device; check the driver and that this is "
            "a CUDA build of PyTorch, or train with --device cpu"
        )
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def make_fabric(device: str, precision: str) -> Fabric:
    """A launched Fabric for this process: `device` auto, cpu or cuda; `precision` auto, bf16, fp16 or fp32.

    Under `torchrun` it joins the others (nccl on CUDA, gloo on the CPU), a GPU each.
    Raises `ProviderUnavailable` when the device isn't there, or has fewer GPUs than processes.
    """
    accelerator = choose_device(device)
    world, local = processes(), int(os.environ.get("LOCAL_WORLD_SIZE", processes()))
    if accelerator == "cuda" and local > torch.cuda.device_count():
        raise ProviderUnavailable(
            f"{local} processes on this node, {torch.cuda.device_count()} GPUs; start as many as there are "
            "GPUs (torchrun --nproc-per-node) or train with --device cpu"
        )
    ddp = DDPStrategy(gradient_as_bucket_view=True)  # every parameter takes part in every step
    plugin = _precision(precision, accelerator)
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=world // local,
        strategy=ddp if world > 1 else "auto",
        plugins=[plugin] if plugin else None,
    )
    fabric.launch()
    return fabric


def _precision(name: str, device: str) -> MixedPrecision | None:
    if name == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        name = "bf16" if fast else "fp32"
    if name == "fp32":
        return None
    if name == "fp16":
        return _Mixed("16-mixed", device, FlooredScaler(device))
    return _Mixed("bf16-mixed", device)


def check_batch(size: int, accumulate: int = 1) -> None:
    """Raises `UsageError` unless `size` pictures make equal parts for all processes, of at least 2 in all."""
    parts = processes() * accumulate
    if size % parts:
        raise UsageError(
            f"batch_size is {size}, which {processes()} processes can't share in {accumulate} parts each; "
            f"choose a multiple of {parts}"
        )


def whole_batch(fabric: Fabric, rows: Tensor) -> Tensor:
    """Rows (N, …) of every process, which are rank, rank + world, … of a batch → the batch (N·world, …).

    Gradients don't pass.
    """
    if fabric.world_size == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.stack(gathered, dim=1).flatten(0, 1)
