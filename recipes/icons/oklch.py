"""OKLCh, the polar form of OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020).

Lightness L is in 0 … 1, chroma C from 0 (grey) to about 0.32, hue h in degrees, and even to the eye.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "hex_of_lch", "lab_of_lch", "lch_of_rgb", "rgb_of_lch"]

Array = npt.NDArray[np.float64]

# OKLab's two matrices: linear sRGB → cone responses, their cube roots → L, a, b.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_CONES, _FROM_LAB = np.linalg.inv(_TO_CONES), np.linalg.inv(_TO_LAB)


def lch_of_rgb(rgb: Array) -> Array:
    """Return OKLCh (…, 3) of sRGB (…, 3) in 0 … 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness, a, b = np.moveaxis(np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T, -1, 0)
    return np.stack([lightness, np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360], axis=-1)


def rgb_of_lch(lch: Array) -> Array:
    """Return sRGB (3,) in 0 … 1 of OKLCh (3,), with as much of its chroma as sRGB has."""
    lightness, chroma, hue = lch
    shares = np.linspace(1, 0, 101)[:, None]
    radians = np.radians(hue)
    lab = np.hstack([np.full_like(shares, lightness), chroma * shares * [np.cos(radians), np.sin(radians)]])
    linear = (lab @ _FROM_LAB.T) ** 3 @ _FROM_CONES.T  # (101, 3)
    inside = np.all((linear > -1e-4) & (linear < 1 + 1e-4), axis=1)
    linear = linear[inside.argmax()].clip(0, 1)  # the first that sRGB has
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def hex_of_lch(lch: Array) -> str:
    """Return the colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * value) for value in rgb_of_lch(lch)))


def lab_of_lch(lch: Array) -> Array:
    """Return OKLab (…, 3), whose distances are those that people see."""
    radians = np.radians(lch[..., 2])
    return np.stack([lch[..., 0], lch[..., 1] * np.cos(radians), lch[..., 1] * np.sin(radians)], axis=-1)
