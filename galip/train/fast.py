"""A cheaper way to the same numbers, for training: the convolution behind a doubling, without the doubling.

Shapes: N batch, Ci and Co channels, S side.
"""

from __future__ import annotations

import functools

import torch.nn.functional as F
from torch import Tensor, nn

from galip.model import GenerationBlock, Generator

__all__ = ["doubled_conv", "merge_doublings"]


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
