"""A sheet of made pictures with its prompts and seeds written beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["labelled_sheet", "labelled_size"]

# pixels
TEXT = 15
LINE = TEXT + 5
LABEL = 190
GAP = 6
MARGIN = 14
LEAST_CELL = 96


def labelled_sheet(
    pictures: NDArray[np.uint8], prompts: Sequence[str], seeds: Sequence[int]
) -> NDArray[np.uint8]:
    """Pictures uint8 (P·S, H, W, 3), a row a prompt and a column a seed → one picture (H', W', 3) on white.

    Small pictures are enlarged by a whole number, pixel by pixel. Characters that Pillow's own font lacks are
    drawn as boxes.
    """
    font = ImageFont.load_default(size=TEXT)
    enlarged = _enlarged(pictures.shape[2])
    cells = pictures.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    height, width = cells.shape[1:3]
    left, top = MARGIN + LABEL + GAP, MARGIN + LINE + GAP
    size = labelled_size(len(prompts), len(seeds), *pictures.shape[1:3])
    sheet = Image.new("RGB", size[::-1], "white")
    draw = ImageDraw.Draw(sheet)
    for column, seed in enumerate(seeds):
        label = _shortened(f"seed {seed}", width, font)
        place = left + column * (width + GAP) + (width - font.getlength(label)) / 2
        draw.text((place, MARGIN), label, fill="#767676", font=font)
    for row, prompt in enumerate(prompts):
        y = top + row * (height + GAP)
        lines = _wrapped(prompt, font)[: max(height // LINE, 1)]
        for number, line in enumerate(lines):
            middle = y + (height - len(lines) * LINE) / 2 + number * LINE
            draw.text((left - 2 * GAP - font.getlength(line), middle), line, fill="black", font=font)
        for column in range(len(seeds)):
            picture = Image.fromarray(cells[row * len(seeds) + column])
            sheet.paste(picture, (left + column * (width + GAP), y))
    return np.asarray(sheet)


def labelled_size(prompts: int, seeds: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of the `labelled_sheet` of pictures of `height` by `width` pixels."""
    cell = [side * _enlarged(width) + GAP for side in (height, width)]
    return 2 * MARGIN + LINE + prompts * cell[0], 2 * MARGIN + LABEL + seeds * cell[1]


def _enlarged(width: int) -> int:
    """How many times as large pictures of `width` pixels are shown."""
    return max(-(-LEAST_CELL // width), 1)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrapped(text: str, font: Font) -> list[str]:
    lines = [""]
    for word in text.split()[:100]:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= LABEL - GAP or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shortened(line, LABEL - GAP, font) for line in lines]


def _shortened(text: str, width: int, font: Font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
