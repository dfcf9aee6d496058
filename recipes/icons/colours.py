"""Whether a picture has the colour that was asked for: that of its largest coloured region, by script.

Colours are named in OKLCh (`icons.oklch`). The script is itself validated on
real icons whose name says their colour ("a blue book").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from scipy import ndimage

from galip.assets import STYLES
from galip.data.shards import Sample
from icons.oklch import lch_of_rgb

__all__ = [
    "ASKED",
    "BOUNDS",
    "COLOURED_THINGS",
    "colour_in_name",
    "colour_names",
    "foreground",
    "largest_colour",
    "measure_colours",
]

ASKED = ("blue", "red", "green", "yellow")
COLOURED_THINGS = ("car", "house", "heart", "T-shirt", "flower")

BOUNDS = (
    ("pink", 338, 370, 0.0, 1.0),
    ("pink", 10, 34, 0.76, 1.0),
    ("red", 10, 34, 0.0, 0.76),
    ("brown", 34, 95, 0.0, 0.62),
    ("orange", 34, 72, 0.62, 1.0),
    ("yellow", 72, 112, 0.62, 1.0),
    ("green", 95, 112, 0.0, 0.62),
    ("green", 112, 188, 0.0, 1.0),
    ("blue", 188, 285, 0.0, 1.0),
    ("purple", 285, 338, 0.0, 1.0),
)
"""Names of colours, each for a range of hues in degrees (370 is 10) and one of lightness (white has 1)."""
LEAST_CHROMA = 0.04
"""White, grey and black have less; they have no name here."""
WHITE_LIGHTNESS = 0.93
LEAST_REGION = 0.01
"""Of the picture; a picture whose coloured regions are all smaller has no colour."""

_COLOURS = tuple(dict.fromkeys(name for name, *_ in BOUNDS))
_NAMED = re.compile(rf"\b({'|'.join(_COLOURS)}) \w")
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)

Picture = NDArray[np.uint8]


def colour_names(picture: Picture) -> NDArray[np.str_]:
    """Return the name in `BOUNDS` of each pixel of a picture uint8 (H, W, 3); "" without one."""
    lightness, chroma, hue = np.moveaxis(lch_of_rgb(picture / 255), -1, 0)
    names = np.full(lightness.shape, "", dtype="<U6")
    for name, first_hue, last_hue, darkest, lightest in BOUNDS:
        in_hue = (hue - first_hue) % 360 < last_hue - first_hue
        # rounding leaves white a little above 1
        in_lightness = (lightness >= darkest) & ((lightness < lightest) | (lightest == 1))
        names[in_hue & in_lightness & (chroma >= LEAST_CHROMA)] = name
    return names


def foreground(picture: Picture) -> NDArray[np.bool_]:
    """Return where a picture uint8 (H, W, 3) is not background, (H, W).

    The background is what is nearly white and connected to the border: white inside a thing is the thing's.
    """
    lightness, chroma, _ = np.moveaxis(lch_of_rgb(picture / 255), -1, 0)
    white = (lightness >= WHITE_LIGHTNESS) & (chroma < LEAST_CHROMA)
    border = np.ones_like(white)
    border[1:-1, 1:-1] = False
    return ~ndimage.binary_propagation(white & border, mask=white)


def largest_colour(picture: Picture) -> str:
    """Return the colour of the largest connected region of one colour in the foreground, "" if there is none.

    Pixels are connected to all eight neighbours. Different lightness of one colour is one region; white,
    grey and black (a car's windows and tyres) are none.
    """
    names = np.where(foreground(picture), colour_names(picture), "")
    largest, size = "", LEAST_REGION * names.size
    for name in _COLOURS:
        regions, _ = ndimage.label(names == name, _EIGHT_NEIGHBOURS)
        area = int(np.bincount(regions.ravel())[1:].max(initial=0))
        if area >= size:
            largest, size = name, area
    return largest


def colour_in_name(name: str) -> str:
    """Return the colour of `BOUNDS` that is an adjective in a thing's name ("light blue heart"), or ""."""
    found = _NAMED.search(name)
    return found[1] if found else ""


def measure_colours(model: TextToImage, icons: Iterable[Sample], seeds: Sequence[int]) -> dict[str, Any]:
    """Measure how many pictures of "a COLOUR THING, STYLE" have the colour asked for, in all styles.

    `icons`: real pictures, of which those with a colour in their name validate the script. Only the colour
    counts, not whether the thing is there. The result is fit for JSON.
    """
    right: dict[str, Counter[str]] = {"colour": Counter(), "thing": Counter(), "style": Counter()}
    found: dict[str, Counter[str]] = {colour: Counter() for colour in ASKED}
    for colour in ASKED:
        for thing in COLOURED_THINGS:
            prompts = [f"a {colour} {thing}, {style}" for style in STYLES for _ in seeds]
            pictures = model.generate(prompts, seeds=list(seeds) * len(STYLES))
            for number, picture in enumerate(pictures):
                seen = largest_colour(picture)
                found[colour][seen or "none"] += 1
                right["colour"][colour] += seen == colour
                right["thing"][thing] += seen == colour
                right["style"][STYLES[number // len(seeds)]] += seen == colour
    pictures_made = len(ASKED) * len(COLOURED_THINGS) * len(STYLES) * len(seeds)
    return {
        "pictures": pictures_made,
        "seeds": list(seeds),
        "share": right["colour"].total() / pictures_made,
        "shares": {
            kind: {name: count * len(counts) / pictures_made for name, count in counts.items()}
            for kind, counts in right.items()
        },
        "found": {colour: dict(counts.most_common()) for colour, counts in found.items()},
        "real": _validate(icons),
    }


def _validate(icons: Iterable[Sample]) -> dict[str, Any]:
    """Return how often `largest_colour` says what real icons' names say."""
    pictures: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for icon in icons:
        if named := colour_in_name(icon.meta["thing"]):
            pictures[named] += 1
            right[named] += largest_colour(icon.picture) == named
    asked = [colour for colour in ASKED if pictures[colour]]
    return {
        "pictures": sum(pictures[colour] for colour in asked),
        "share": sum(right[colour] for colour in asked) / max(1, sum(pictures[colour] for colour in asked)),
        "shares": {colour: right[colour] / pictures[colour] for colour in _COLOURS if pictures[colour]},
    }
