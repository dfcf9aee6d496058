"""Cheaper ways to the same numbers, for training.

Shapes: N batch, Ci and Co channels, S side, G CLIP grid, D sentence.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip.model import GenerationBlock, Generator, QualityAssessor

__all__ = ["assess", "doubled_conv", "memory_format", "merge_doublings", "split_sentence"]


def memory_format(device: torch.device, image_size: int) -> torch.memory_format:
    """The faster layout of pictures and maps for training.

    channels_last, but for large pictures on a CPU: from 224 pixels a side the weights' gradients take oneDNN
    twice as long in it.
    """
    is_large = device.type == "cpu" and image_size > 128
    return torch.contiguous_format if is_large else torch.channels_last


def doubled_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv`, 3×3 with padding 1, of x (N, Ci, S, S) doubled by nearest: (N, Co, 2S, 2S), up to rounding.

    Each input pixel stands for a square of four, and what the kernel gives to the four together is the
    kernel summed over the square's shifts: 4×4 numbers, put down every second pixel. That is a transposed
    convolution, with 16 products for an input pixel and channel pair instead of 36.
    """
    squares = [F.pad(conv.weight, (right, 1 - right, down, 1 - down)) for right in (0, 1) for down in (0, 1)]
    kernel = (squares[0] + squares[1] + squares[2] + squares[3]).flip(2, 3).transpose(0, 1)  # (Ci, Co, 4, 4)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def merge_doublings(generator: Generator) -> None:
    """Let the blocks of `generator` that double the size do it within their first convolution."""
    size = generator.grid
    for block in generator.blocks:
        assert isinstance(block, GenerationBlock)
        if block.size == 2 * size:
            block.grow = functools.partial(doubled_conv, block.conv1)  # type: ignore[method-assign]
        size = block.size


def assess(assessor: QualityAssessor, feature: Tensor, sentence: Tensor) -> Tensor:
    """What `assessor` says of feature (N, C, G, G) and sentence (N, D): (N), up to rounding.

    The sentence is the same at every place and nothing is padded, so what the first kernel gives for it is
    one number per output channel: a matrix product with the kernel summed over its places.
    """
    first, *rest = assessor.convs
    assert isinstance(first, nn.Conv2d)
    weight, channels = first.weight, feature.shape[1]  # (A, C + D, 4, 4)
    told = F.linear(sentence, weight[:, channels:].sum(dim=(2, 3)))  # (N, A)
    h = F.conv2d(feature, weight[:, :channels]) + told[:, :, None, None]  # (N, A, G - 3, G - 3)
    for layer in rest:
        h = layer(h)
    return h.mean(dim=(1, 2, 3))


def split_sentence(assessor: QualityAssessor) -> None:
    """Let `assessor` treat picture and sentence apart."""
    assessor.forward = functools.partial(assess, assessor)  # type: ignore[method-assign]
