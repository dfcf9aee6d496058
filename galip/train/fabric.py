"""Lightning Fabric, set up for a training run: device, precision, and several processes under `torchrun`.

`torchrun` starts the processes, on one node or on several. Without it there is one process, and nothing is
distributed.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

import torch
from galip_runtime.errors import ProviderUnavailable
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from galip.early_checks import TRAIN_ON_CPU, world_size
from galip.torch_build import no_cuda

__all__ = [
    "MIN_LOSS_SCALE",
    "FlooredScaler",
    "any_process",
    "choose_device",
    "describe_device",
    "gather_batch",
    "gather_objects",
    "make_fabric",
    "mean_over_processes",
]

MIN_LOSS_SCALE = 64.0
"""Floor of the loss scale in fp16 training. The released code resets its scaler to 64."""


class FlooredScaler(torch.amp.GradScaler):
    """A gradient scaler that never falls below `MIN_LOSS_SCALE`; torch's would shrink towards zero."""

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update as torch does, then raise the scale to the floor."""
        super().update(new_scale)
        if self._scale is not None:
            self._scale.clamp_(min=MIN_LOSS_SCALE)


class _AutocastOnly(MixedPrecision):
    """Autocast that doesn't convert inputs, so sentence vectors and noise stay fp32."""

    def convert_input(self, data: Any) -> Any:
        return data


def choose_device(name: str) -> str:
    """Return `cpu` or `cuda`; `auto` is CUDA if PyTorch finds a device. Raises `ProviderUnavailable`."""
    if name == "cuda" and not torch.cuda.is_available():
        raise no_cuda(TRAIN_ON_CPU)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def make_fabric(device: str, precision: str) -> Fabric:
    """Create and launch this process's Fabric. `device`: auto, cpu or cuda; `precision`: auto, bf16, fp16 or
    fp32.

    Under `torchrun` it joins the other processes (nccl on CUDA, gloo on the CPU), one GPU each.
    Raises `ProviderUnavailable` if the device is missing or has fewer GPUs than processes.
    """
    accelerator = choose_device(device)
    world, local = world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    if accelerator == "cuda" and local > torch.cuda.device_count():
        raise ProviderUnavailable(
            f"{local} processes on this node, {torch.cuda.device_count()} GPUs; start one process "
            "for each GPU (torchrun --nproc-per-node) or train with --device cpu"
        )
    ddp = DDPStrategy(gradient_as_bucket_view=True)  # every parameter takes part in every step
    plugin = _precision_plugin(precision, accelerator)
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=world // local,
        strategy=ddp if world > 1 else "auto",
        plugins=[plugin] if plugin else None,
    )
    fabric.launch()
    if world > 1:
        atexit.register(_leave_processes)
    return fabric


def _leave_processes() -> None:
    """End gloo's threads before the interpreter does: one that outlives it aborts the process at times.

    Fabric does the same for nccl.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _precision_plugin(name: str, device: str) -> MixedPrecision | None:
    if name == "auto":
        has_bf16 = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        name = "bf16" if has_bf16 else "fp32"
    if name == "fp32":
        return None
    if name == "fp16":
        return _AutocastOnly("16-mixed", device, FlooredScaler(device))
    return _AutocastOnly("bf16-mixed", device)


def describe_device(fabric: Fabric) -> str:
    """Return the devices and the precision of a run in words: `2 x cuda, bf16`."""
    precision = {"32-true": "fp32", "16-mixed": "fp16", "bf16-mixed": "bf16"}
    return f"{fabric.world_size} x {fabric.device.type}, {precision[fabric.strategy.precision.precision]}"


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Return whether `flag` is true in any process. Every process calls this."""
    if fabric.world_size == 1:
        return flag
    flags = fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum")
    assert isinstance(flags, Tensor)
    return bool(flags > 0)


def mean_over_processes(fabric: Fabric, scalars: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the scalars' means over all processes, which work on parts of the same batches."""
    if fabric.world_size == 1 or not scalars:
        return scalars
    means = fabric.all_reduce(torch.stack([*scalars.values()]), reduce_op="mean")
    assert isinstance(means, Tensor)
    return dict(zip(scalars, means, strict=True))


def gather_batch(fabric: Fabric, rows: Tensor) -> Tensor:
    """Gather the whole batch (N·world, …) from every process's rows (N, …): rank, rank + world, ….

    Gradients don't flow through it.
    """
    if fabric.world_size == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.stack(gathered, dim=1).flatten(0, 1)


def gather_objects(fabric: Fabric, value: Any) -> list[Any]:
    """Gather a picklable value from every process, in order of rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values
