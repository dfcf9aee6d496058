"""Layers of the model in cheaper forms for training; results agree up to rounding.

Shapes: N batch, Ci and Co channels, S side, G CLIP grid, D sentence.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip.model import GenerationBlock, Generator, QualityAssessor

__all__ = ["assess", "choose_memory_format", "fuse_upsampling", "split_assessor", "upsample_conv2d"]


def choose_memory_format(device: torch.device, image_size: int) -> torch.memory_format:
    """Return the faster memory format of pictures and feature maps for training.

    That is channels_last, except for large pictures on a CPU: from 224 pixels a side oneDNN takes twice as
    long for the weights' gradients in it.
    """
    is_large = device.type == "cpu" and image_size > 128
    return torch.contiguous_format if is_large else torch.channels_last


def upsample_conv2d(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Upsample x (N, Ci, S, S) by nearest and apply `conv`, 3×3 with padding 1, in one: (N, Co, 2S, 2S).

    Each input pixel stands for a square of four. What the kernel adds for the four together is the kernel
    summed over the square's shifts: 4×4 numbers, placed at every second pixel. That is a transposed
    convolution, with 16 products for each input pixel and channel pair instead of 36.
    """
    shifts = [F.pad(conv.weight, (right, 1 - right, down, 1 - down)) for right in (0, 1) for down in (0, 1)]
    kernel = (shifts[0] + shifts[1] + shifts[2] + shifts[3]).flip(2, 3).transpose(0, 1)  # (Ci, Co, 4, 4)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def fuse_upsampling(generator: Generator) -> None:
    """Fuse the upsampling of each block of `generator` that doubles the size into its first convolution."""
    size = generator.grid
    for block in generator.blocks:
        assert isinstance(block, GenerationBlock)
        if block.size == 2 * size:
            block.grow = functools.partial(upsample_conv2d, block.conv1)  # type: ignore[method-assign]
        size = block.size


def assess(assessor: QualityAssessor, feature: Tensor, sentence: Tensor) -> Tensor:
    """Return the logits (N) of `assessor` for feature (N, C, G, G) and sentence (N, D).

    The sentence is the same at every place and nothing is padded, so the first kernel contributes one number
    per output channel for it: a matrix product with the kernel summed over its places.
    """
    first, *rest = assessor.convs
    assert isinstance(first, nn.Conv2d)
    weight, channels = first.weight, feature.shape[1]  # (A, C + D, 4, 4)
    bias = F.linear(sentence, weight[:, channels:].sum(dim=(2, 3)))  # (N, A)
    h = F.conv2d(feature, weight[:, :channels]) + bias[:, :, None, None]  # (N, A, G - 3, G - 3)
    for layer in rest:
        h = layer(h)
    return h.mean(dim=(1, 2, 3))


def split_assessor(assessor: QualityAssessor) -> None:
    """Let `assessor` process the picture's feature and the sentence separately, as `assess` does."""
    assessor.forward = functools.partial(assess, assessor)  # type: ignore[method-assign]
