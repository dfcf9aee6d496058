"""A contact sheet: pictures in rows on white, each with its caption under it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.errors import UsageError
from galip_runtime.files import check_writable, staged_file
from PIL import Image, ImageDraw, ImageFont

from galip.data.captioned import CaptionedPicture

__all__ = ["SAMPLES", "check_sheet_path", "contact_sheet", "save_sheet"]

SAMPLES = 24
COLUMNS = 6
# pixels
CELL = 208
GAP = 20
TEXT = 15
NOTE = 12
LINES = 5

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Cell:
    """A picture as the sheet shows it."""

    picture: Image.Image
    """Fitted in a square of `CELL` pixels."""
    caption: list[str]
    note: str


def contact_sheet(pictures: Iterable[CaptionedPicture], columns: int = COLUMNS) -> Image.Image:
    """Lay out pictures as RGB: each fitted in a square, with its first caption, size and number of captions.

    Characters that Pillow's own font lacks appear as boxes.
    """
    text, note = ImageFont.load_default(size=TEXT), ImageFont.load_default(size=NOTE)
    cells = [
        _Cell(_fit(sample.picture), _wrapped(sample.captions[0], text), _note(sample)) for sample in pictures
    ]
    columns = min(columns, len(cells))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [CELL + 8 + max(len(cell.caption) for cell in row) * (TEXT + 5) + NOTE + 8 for row in rows]
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + sum(heights) + GAP * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = GAP + column * (CELL + GAP)
            _paste(sheet, cell.picture, left, top)
            y = top + CELL + 8
            for line in cell.caption:
                draw.text((left, y), line, fill="black", font=text)
                y += TEXT + 5
            draw.text((left, y + 2), cell.note, fill="#767676", font=note)
        top += height + GAP
    return sheet


def _fit(picture: Image.Image) -> Image.Image:
    scale = CELL / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _paste(sheet: Image.Image, fitted: Image.Image, left: int, top: int) -> None:
    size = fitted.size
    place = (left + (CELL - size[0]) // 2, top + (CELL - size[1]) // 2)
    sheet.paste(fitted, place)
    frame = (place[0] - 1, place[1] - 1, place[0] + size[0], place[1] + size[1])
    ImageDraw.Draw(sheet).rectangle(frame, outline="#d8d8d8")


def _note(sample: CaptionedPicture) -> str:
    more = len(sample.captions) - 1
    size = f"{sample.picture.width} x {sample.picture.height}"
    return f"{size}, {more} more caption{'s' if more > 1 else ''}" if more else size


def _wrapped(caption: str, font: Font) -> list[str]:
    """Wrap a caption to the width of a cell, at most `LINES` lines; a wider word is cut."""
    lines = [""]
    for word in caption.split()[:200]:
        for part in _parts(word, font):
            longer = f"{lines[-1]} {part}".strip()
            if font.getlength(longer) <= CELL:
                lines[-1] = longer
            else:
                lines.append(part)
    if len(lines) > LINES:
        last = lines[LINES - 1]
        while font.getlength(last + "…") > CELL:
            last = last[:-1]
        lines = [*lines[: LINES - 1], last + "…"]
    return lines


def _parts(word: str, font: Font) -> list[str]:
    parts = [""]
    for letter in word[:500]:
        if font.getlength(parts[-1] + letter) > CELL:
            parts.append("")
        parts[-1] += letter
    return parts


def check_sheet_path(file: Path) -> None:
    """Raise `UsageError` for a file that a sheet can't be written to."""
    if file.suffix.lower() != ".png":
        raise UsageError(f"{file} does not end in .png; the sheet is written as PNG.")
    check_writable(file)


def save_sheet(sheet: Image.Image, file: Path) -> None:
    """Write a PNG, whole or not at all. Raises `UsageError` if it can't be written."""
    with staged_file(file) as temporary:
        sheet.save(temporary, "PNG")
