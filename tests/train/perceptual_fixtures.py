"""A tiny perceptual teacher with random weights."""

import torch
from safetensors.torch import save_file

__all__ = ["WIDTHS", "teacher_tensors", "write_teacher"]

WIDTHS = (4, 6, 8)


def teacher_tensors():
    """Return the tensors of a teacher of `WIDTHS` channels."""
    generator = torch.Generator().manual_seed(0)
    tensors, width = {}, 3
    for block, (out, convolutions) in enumerate(zip(WIDTHS, (2, 2, 3), strict=True), start=1):
        for index in range(1, convolutions + 1):
            scale = (2 / (9 * width)) ** 0.5
            tensors[f"conv{block}_{index}.weight"] = scale * torch.randn(
                out, width, 3, 3, generator=generator
            )
            tensors[f"conv{block}_{index}.bias"] = 0.1 * torch.randn(out, generator=generator)
            width = out
        tensors[f"lpips{block}.weight"] = torch.rand(out, generator=generator)
    return tensors


def write_teacher(path, **changed):
    """Write the teacher to `path`, with tensors `changed` (None: left out), and return `path`."""
    tensors = {
        name: changed.get(name.replace(".", "_"), tensor) for name, tensor in teacher_tensors().items()
    }
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    return path
