"""Drawings put together: two or three in one picture, smaller, or mirrored."""

from __future__ import annotations

import re
from collections.abc import Sequence

from icons.render import nested, view_box

__all__ = ["arranged", "mirrored"]

SIDE = 100.0
PLACES: dict[int, tuple[tuple[float, float, float], ...]] = {
    2: ((0, 25.5, 49), (51, 25.5, 49)),
    3: ((26, 1, 48), (0, 51, 48), (52, 51, 48)),
}
"""Left, top and side of each of two or three drawings in a square of `SIDE`."""


def arranged(svgs: Sequence[str], scale: float = 1.0) -> str:
    """Return one square SVG with drawings in it: two side by side, three in a triangle, or one.

    `scale`: the side of a single drawing, as a fraction of the square's.
    """
    if len(svgs) == 1:
        places: Sequence[tuple[float, float, float]] = (
            (SIDE * (1 - scale) / 2, SIDE * (1 - scale) / 2, SIDE * scale),
        )
    else:
        places = PLACES[len(svgs)]
    parts = (
        nested(_own_ids(svg, number), left, top, side, side)
        for number, (svg, (left, top, side)) in enumerate(zip(svgs, places, strict=True))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="0 0 {SIDE} {SIDE}">{"".join(parts)}</svg>'
    )


def mirrored(svg: str) -> str:
    """Return the SVG with left and right exchanged."""
    left, _, width, _ = view_box(svg)
    start = svg.index(">") + 1
    end = svg.rindex("</svg>")
    flip = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">'
    return f"{svg[:start]}{flip}{svg[start:end]}</g></svg>"


def _own_ids(svg: str, number: int) -> str:
    """Return the SVG with ids that no other part of the picture has."""
    return re.sub(r'((?<=\s)id="|url\(#|href="#)', rf"\1part{number}-", svg)
