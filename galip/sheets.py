"""Sheets of pictures, labelled with their prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["labelled_sheet", "labelled_size"]

# In pixels
TEXT_SIZE = 15
LINE_HEIGHT = TEXT_SIZE + 5
LABEL_WIDTH = 190
GAP = 6
MARGIN = 14
SMALLEST_CELL = 96


def labelled_sheet(
    pictures: NDArray[np.uint8], rows: Sequence[str], columns: Sequence[str]
) -> NDArray[np.uint8]:
    """Lay out pictures uint8 (R·C, H, W, 3) with the labels of their R rows (prompts) and C columns (seeds)
    → (H', W', 3) on white.

    Small pictures are enlarged by a whole factor. Characters that Pillow's own font lacks appear as boxes.
    """
    font = ImageFont.load_default(size=TEXT_SIZE)
    scale = _scale(pictures.shape[2])
    cells = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = cells.shape[1:3]
    left, top = MARGIN + LABEL_WIDTH + GAP, MARGIN + LINE_HEIGHT + GAP
    size = labelled_size(len(rows), len(columns), *pictures.shape[1:3])
    sheet = Image.new("RGB", size[::-1], "white")
    draw = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        label = _shortened(text, width, font)
        x = left + column * (width + GAP) + (width - font.getlength(label)) / 2
        draw.text((x, MARGIN), label, fill="#767676", font=font)
    for row, text in enumerate(rows):
        y = top + row * (height + GAP)
        lines = _wrapped(text, font)[: max(height // LINE_HEIGHT, 1)]
        for number, line in enumerate(lines):
            line_y = y + (height - len(lines) * LINE_HEIGHT) / 2 + number * LINE_HEIGHT
            draw.text((left - 2 * GAP - font.getlength(line), line_y), line, fill="black", font=font)
        for column in range(len(columns)):
            picture = Image.fromarray(cells[row * len(columns) + column])
            sheet.paste(picture, (left + column * (width + GAP), y))
    return np.asarray(sheet)


def labelled_size(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the `labelled_sheet` of pictures of `height` by `width` pixels."""
    cell = [side * _scale(width) + GAP for side in (height, width)]
    return 2 * MARGIN + LINE_HEIGHT + rows * cell[0], 2 * MARGIN + LABEL_WIDTH + columns * cell[1]


def _scale(width: int) -> int:
    """Return the factor by which pictures of `width` pixels are enlarged."""
    return max(-(-SMALLEST_CELL // width), 1)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrapped(text: str, font: Font) -> list[str]:
    lines = [""]
    for word in text.split()[:100]:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= LABEL_WIDTH - GAP or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shortened(line, LABEL_WIDTH - GAP, font) for line in lines]


def _shortened(text: str, width: int, font: Font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
