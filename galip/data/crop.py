"""Crop and resize a picture of any size to the square that a model takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CROPS", "RESIZED", "to_square"]

CROPS = ("exact", "random")
RESIZED = "shorter side by Pillow's bilinear filter, then the middle"
"""What `exact` does to a picture of another size, for a report."""
MARGIN = 76 / 64
"""The released code resizes to this many times the side that it crops."""


def to_square(
    picture: Image.Image, size: int, crop: str, x: float = 0.5, y: float = 0.5, mirrored: bool = False
) -> NDArray[np.uint8]:
    """Return an RGB picture as uint8 (3, S, S), S being `size`.

    `exact`: a picture of S x S stays as it is; another's shorter side becomes S and the centre is cropped.
    `random`: the shorter side becomes int(S · 76/64), then the crop is at (x, y) in [0, 1) of the way.
    Resized bilinearly, as torchvision's Resize, and only where the crop is: a panorama costs no more than a
    square.
    """
    if crop == "exact":
        x = y = 0.5
    if crop != "exact" or picture.size != (size, size):
        shorter = size if crop == "exact" else int(size * MARGIN)
        width, height = (max(side * shorter // min(picture.size), shorter) for side in picture.size)
        left, top = int(x * (width - size + 1)), int(y * (height - size + 1))
        across, down = picture.width / width, picture.height / height  # source pixels a resized one
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(picture).transpose(2, 0, 1)  # (3, S, S)
    return np.ascontiguousarray(pixels[:, :, ::-1] if mirrored else pixels)
