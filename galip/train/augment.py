"""Picture augmentation on batches of uint8 or float pictures (N, 3, S, S).

Icons lie on white, so what moves in from outside is white.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "AUGMENT_DIMS",
    "POSE_DIMS",
    "cut_out",
    "diff_augment",
    "pose",
    "pose_from_noise",
    "random_corner",
    "random_offset",
    "shift",
    "to_float",
]

AUGMENT_DIMS = 7
"""Uniform numbers that `diff_augment` needs for a picture: 3 for color, 2 for translation, 2 for cutout."""

POSE_DIMS = 3
"""Numbers of a pose: scale, shift right, shift down."""

_SCALE = (0.8, 1.0)
_SHIFT = 0.08  # of half the picture, either way


def to_float(pictures: Tensor) -> Tensor:
    """Convert uint8 pictures (N, 3, S, S) to float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def pose_from_noise(noise: Tensor) -> Tensor:
    """Map noise (N, Z ≥ 3), standard normal, to the uniform numbers (N, 3) in [0, 1] of a pose."""
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


def diff_augment(pictures: Tensor, policy: Collection[str], uniform: Tensor) -> Tensor:
    """Apply DiffAugment (Zhao et al. 2020) to pictures (N, 3, S, S) in [-1, 1] by numbers (N, 7) in [0, 1].

    `policy` names any of: `color`, brightness by ±0.5, saturation by 0 to 2, contrast by 0.5 to 1.5;
    `translation`, by up to an eighth of the picture, white moves in; `cutout`, a grey hole of half the
    picture's side. Differentiable.
    """
    if "color" in policy:
        brightness, saturation, contrast = uniform[:, :3].view(-1, 3, 1, 1, 1).unbind(1)
        pictures = pictures + (brightness - 0.5)
        grey = pictures.mean(dim=1, keepdim=True)
        pictures = grey + (pictures - grey) * (saturation * 2)
        mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
        pictures = mean + (pictures - mean) * (contrast + 0.5)
    side = pictures.shape[-1]
    position = torch.arange(side, device=pictures.device)
    if "translation" in policy:
        most = round(side / 8)
        right, down = (uniform[:, 3:5] * (2 * most + 1)).floor().clamp_max(2 * most).long().unbind(1)
        padded = F.pad(pictures, (most, most, most, most), value=1.0)
        rows = position + (2 * most - down)[:, None]  # (N, S)
        columns = position + (2 * most - right)[:, None]  # (N, S)
        number = torch.arange(len(pictures), device=pictures.device)[:, None, None]
        pictures = padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(
            0, 3, 1, 2
        )
    if "cutout" in policy:
        first = (uniform[:, 5:7] * (side + 1)).floor() - side // 4  # the hole may hang over the border
        inside = [
            (position >= f[:, None]) & (position < f[:, None] + side // 2) for f in first.unbind(1)
        ]  # (N, S) each
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (N, 1, S, S)
        pictures = pictures.masked_fill(hole, 0.0)
    return pictures


def shift(pictures: Tensor, offset: tuple[int, int]) -> Tensor:
    """Shift pictures (N, 3, S, S) by `offset` pixels right and down, borders repeated.

    CLIP cuts pictures into patches at fixed positions. Without a random shift before the frozen tower the
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
    """Sample pixels right and down, each from -most to most."""
    right, down = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return right, down


def random_corner(size: int, window: int, generator: torch.Generator) -> tuple[int, int]:
    """Sample the first row and column of a square of `window` pixels in pictures of `size`; 0 if it covers
    them.
    """
    top, left = torch.randint(0, max(size - window, 0) + 1, (2,), generator=generator).tolist()
    return top, left


def cut_out(pictures: Tensor, corner: tuple[int, int], window: int) -> Tensor:
    """Cut the square of `window` pixels at `corner` out of pictures (N, 3, S, S); all of them if smaller."""
    top, left = corner
    return pictures[:, :, top : top + window, left : left + window]
