"""Recolouring drawings: from the one hue that fills most of an SVG to a named colour, shading included.

Colours are compared and moved in OKLCh (`icons.oklch`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from icons.oklch import Array, lab_of_lch, lch_of_rgb, rgb_of_lch

__all__ = [
    "COLOURS",
    "Family",
    "dominant",
    "drawn",
    "nearest",
    "recoloured",
]

COLOURS = {
    "red": (0.58, 0.22, 26),
    "orange": (0.75, 0.17, 60),
    "yellow": (0.88, 0.17, 96),
    "green": (0.62, 0.18, 144),
    "blue": (0.56, 0.19, 259),
    "purple": (0.52, 0.20, 304),
    "pink": (0.79, 0.13, 355),
    "brown": (0.47, 0.085, 52),
    "black": (0.28, 0.0, 0),
    "white": (0.92, 0.0, 0),
    "grey": (0.65, 0.0, 0),
}
"""The colours that drawings get, as OKLCh: what people call so at once."""

HUE_RANGE = 40.0
"""Degrees on both sides of the dominant hue that belong to its family."""
GREY = 0.045
"""Chroma below which a colour is grey, outline or white, and stays as it is."""
HUE_KEPT = 0.3
"""Share of the differences in hue within the family that are kept."""
MOST_CHROMA = 1.25
"""Of a shade, as a multiple of the colour's own."""
WHITE = 0.985
"""Lightness from which a pixel counts as the white around the drawing."""
BINS = 72
"""Of the histogram of hues that finds the dominant one."""
SHADING = {"black": 0.45, "white": 0.35, "grey": 0.8}
"""Share of the differences in lightness that is kept; elsewhere all of it."""


def nearest(lch: Array) -> str:
    """Return the name of the colour of `COLOURS` that is nearest."""
    distances = np.linalg.norm(lab_of_lch(np.array(list(COLOURS.values()))) - lab_of_lch(lch), axis=1)
    return list(COLOURS)[int(distances.argmin())]


def _turn(hue: Array, origin: float) -> Array:
    """Return the angle from `origin` to `hue`, -180 … 180 degrees."""
    return (hue - origin + 180) % 360 - 180


@dataclass(frozen=True)
class Family:
    """The shades of the hue that fills most of a drawing."""

    lightness: float
    chroma: float
    hue: float
    """OKLCh, the medians over the area."""
    share: float
    """Of the drawing's area."""

    @property
    def lch(self) -> Array:
        """The three as an array (3,)."""
        return np.array([self.lightness, self.chroma, self.hue])

    def holds(self, lch: Array) -> npt.NDArray[np.bool_]:
        """Return which of the colours (…, 3) are of this family."""
        return (lch[..., 1] > GREY) & (np.abs(_turn(lch[..., 2], self.hue)) <= HUE_RANGE)

    def moved(self, lch: Array, colour: str) -> Array:
        """Return shades (…, 3) of this family as the same shades of `colour`."""
        target = COLOURS[colour]
        lightness = target[0] + SHADING.get(colour, 1.0) * (lch[..., 0] - self.lightness)
        chroma = target[1] * np.minimum(lch[..., 1] / self.chroma, MOST_CHROMA)
        hue = target[2] + HUE_KEPT * _turn(lch[..., 2], self.hue)
        return np.stack([np.clip(lightness, 0, 1), chroma, hue], axis=-1)


def drawn(picture: npt.NDArray[np.uint8]) -> Array:
    """Return OKLCh (N, 3) of what isn't white in a picture (H, W, 3) of a drawing on white."""
    lch = lch_of_rgb(picture.reshape(-1, 3) / 255)
    return lch[lch[:, 0] < WHITE]


def dominant(lch: Array) -> Family | None:
    """Return the family that fills most of the area `lch` (N, 3); None if there are greys alone."""
    coloured = lch[lch[:, 1] > GREY]
    if not len(coloured):
        return None
    areas = np.histogram(coloured[:, 2], bins=BINS, range=(0, 360))[0]
    near = sum(np.roll(areas, shift) for shift in range(-4, 5))
    hue = (int(np.argmax(near)) + 0.5) * 360 / BINS
    family = coloured[np.abs(_turn(coloured[:, 2], hue)) <= HUE_RANGE]
    lightness, chroma = np.median(family[:, 0]), np.median(family[:, 1])
    hue = (hue + np.median(_turn(family[:, 2], hue))) % 360
    return Family(float(lightness), float(chroma), float(hue), len(family) / len(lch))


_FILL = re.compile(r'(?<=fill="|roke="|olor=")(#\w+|(?!none|url|current)[a-z]+|rgba\([^)]*\))(?=")')
# Shadows and highlights of 3D drawings: a filter that paints red, green and blue, 0 … 1
_PAINT = re.compile(r'(?<=values=")0 0 0 0 ([\d.]+) 0 0 0 0 ([\d.]+) 0 0 0 0 ([\d.]+)(?= 0 0 0 )')


def recoloured(svg: str, family: Family, colour: str) -> str:
    """Return the SVG with the family's shades as shades of `colour` (of `COLOURS`). Other colours stay."""

    def shade(rgb: Array) -> Array | None:
        lch = lch_of_rgb(rgb)
        return rgb_of_lch(family.moved(lch, colour)) if family.holds(lch) else None

    def fill(match: re.Match[str]) -> str:
        text = match[0]
        *rgb, alpha = text[5:-1].split(",") if text.startswith("rgba") else (*ImageColor.getrgb(text)[:3], "")
        new = shade(np.array(rgb, float) / 255)
        if new is None:
            return text
        red, green, blue = (round(255 * value) for value in new)
        return f"rgba({red}, {green}, {blue},{alpha})" if alpha else f"#{red:02x}{green:02x}{blue:02x}"

    def paint(match: re.Match[str]) -> str:
        new = shade(np.array(match.groups(), float))
        return match[0] if new is None else "0 0 0 0 {:.6f} 0 0 0 0 {:.6f} 0 0 0 0 {:.6f}".format(*new)

    return _PAINT.sub(paint, _FILL.sub(fill, svg))
