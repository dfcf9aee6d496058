"""Crop and resize a picture of any size to the square that a model takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CROPS", "RESIZED", "crop_from", "to_square", "uncropped"]

CROPS = ("exact", "random")
RESIZED = "shorter side by Pillow's bilinear filter, then the middle"
"""What `exact` does to a picture of another size, for a report."""
MARGIN = 76 / 64
"""The released code resizes to this many times the side that it crops."""
MOST_ASPECT = 8
"""Longer side over shorter side, of what `uncropped` keeps."""


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
        picture = _resized(picture, size if crop == "exact" else int(size * MARGIN), (size, size), x, y)
    pixels = np.asarray(picture).transpose(2, 0, 1)  # (3, S, S)
    return np.ascontiguousarray(pixels[:, :, ::-1] if mirrored else pixels)


def uncropped(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return what `to_square` crops at random from, uint8 (3, H, W); of a panorama the middle part.

    `crop_from` gives the crops: for a picture that is needed often.
    """
    shorter = int(size * MARGIN)
    most = MOST_ASPECT * shorter
    part = tuple(min(max(side * shorter // min(picture.size), shorter), most) for side in picture.size)
    pixels = np.asarray(_resized(picture, shorter, (part[0], part[1]), 0.5, 0.5))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def crop_from(pixels: NDArray[np.uint8], size: int, x: float, y: float) -> NDArray[np.uint8]:
    """Return the square (3, S, S) of `pixels` (3, H, W) that is at (x, y) in [0, 1) of the way."""
    left, top = int(x * (pixels.shape[2] - size + 1)), int(y * (pixels.shape[1] - size + 1))
    return pixels[:, top : top + size, left : left + size]


def _resized(picture: Image.Image, shorter: int, part: tuple[int, int], x: float, y: float) -> Image.Image:
    """Resize `picture` to the `shorter` side; return a part (width, height) at (x, y) of the way."""
    width, height = (max(side * shorter // min(picture.size), shorter) for side in picture.size)
    left, top = int(x * (width - part[0] + 1)), int(y * (height - part[1] + 1))
    across, down = picture.width / width, picture.height / height  # source pixels a resized one
    box = (left * across, top * down, (left + part[0]) * across, (top + part[1]) * down)
    return picture.resize(part, Image.Resampling.BILINEAR, box=box)
