"""Picture augmentation on batches of uint8 or float pictures (N, 3, S, S).

Icons lie on white, so what moves in from outside is white.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["POSE_DIMS", "pose", "pose_from_noise", "random_offset", "shift", "to_float"]

POSE_DIMS = 3
"""Numbers a pose is made of: scale, shift right, shift down."""

_SCALE = (0.8, 1.0)
_SHIFT = 0.08  # of half the picture, either way


def to_float(pictures: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) → float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def pose_from_noise(noise: Tensor) -> Tensor:
    """Noise (N, Z ≥ 3), standard normal → uniform numbers (N, 3) in [0, 1] that make a pose."""
    return torch.special.ndtr(noise[:, :POSE_DIMS].float())


def pose(pictures: Tensor, uniform: Tensor) -> Tensor:
    """Scale and shift each picture (N, 3, S, S) in [-1, 1] by its numbers (N, 3) in [0, 1]."""
    scale, right, down = uniform.unbind(1)
    zoom, none = 1 / (_SCALE[0] + scale * (_SCALE[1] - _SCALE[0])), torch.zeros_like(scale)
    rows = [
        torch.stack([zoom, none, (right * 2 - 1) * _SHIFT], dim=1),
        torch.stack([none, zoom, (down * 2 - 1) * _SHIFT], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pictures.shape), align_corners=False)
    return (
        F.grid_sample(pictures - 1, grid, mode="bilinear", align_corners=False) + 1
    )  # zero padding is white


def shift(pictures: Tensor, offset: tuple[int, int]) -> Tensor:
    """Shift pictures (N, 3, S, S) by `offset` pixels right and down, borders repeated.

    CLIP cuts pictures into patches at fixed places; without a random shift before the frozen tower the
    generator learns a plaid texture at the patch pitch.
    """
    right, down = offset
    if right == down == 0:
        return pictures
    return F.pad(pictures, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")[
        :,
        :,
        max(-down, 0) : max(-down, 0) + pictures.shape[2],
        max(-right, 0) : max(-right, 0) + pictures.shape[3],
    ]


def random_offset(most: int, generator: torch.Generator) -> tuple[int, int]:
    """Pixels right and down, each from -most to most."""
    right, down = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return right, down
