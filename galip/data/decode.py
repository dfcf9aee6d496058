"""Decode pictures, from bytes or a file, to RGB; whatever is wrong with one becomes a `BrokenPicture`."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular
from PIL import Image, ImageOps, UnidentifiedImageError, features

__all__ = [
    "MAX_BROKEN",
    "MAX_PICTURE_BYTES",
    "MAX_PIXELS",
    "PICTURE_ENDINGS",
    "BrokenPicture",
    "EncodedPicture",
    "on_white",
]

MAX_PIXELS = 2**26
"""A larger picture counts as a decompression bomb. One of this size takes up to 1 GB to decode."""

MAX_PICTURE_BYTES = 2**28
"""Of an encoded picture."""

MAX_SCANS = 100
"""Of a progressive JPEG. About ten are usual; a scan of a few bytes can go over the whole picture."""

MAX_BROKEN = 0.01
"""Share of broken pictures above which training stops by default."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", *(("AVIF",) if features.check("avif") else ()))
"""Formats that are decoded, whatever the file's ending; none of these starts another program. Older Pillows
have no AVIF: such a picture is then a broken one.
"""
PICTURE_ENDINGS = ("png", "jpg", "jpeg", "webp", "jpe", "jfif", "gif", "bmp", "avif")
"""The suffixes of pictures."""

# in a scan, FF 00 is a byte and FF D0 to FF D7 are markers that belong to it
_SEGMENT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

Box = tuple[int, int, int, int]


class BrokenPicture(FileRefused):
    """One picture can't be decoded or has no caption; a training run counts and skips it."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture before it is decoded."""

    where: str
    """Names it in errors."""
    content: bytes | Path
    upright: bool = True
    """Rotate it as its EXIF data says; the released data loaders of CUB and COCO don't."""

    def size(self) -> tuple[int, int]:
        """Return (width, height) as stored, reading only the header. Raises `BrokenPicture`."""
        with self._opened() as picture:
            return picture.size

    def decode(self) -> Image.Image:
        """Decode to RGB, with transparency on white. Raises `BrokenPicture`."""
        with self._opened() as picture:
            try:
                picture.load()
                if self.upright:
                    _rotate(picture)
                return on_white(picture)
            except Exception as error:  # Pillow's decoders let any exception through
                raise self._broken(error) from error

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        """Open the picture and read its header, until the block ends. Raises `BrokenPicture`."""
        with contextlib.ExitStack() as files:
            files.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # Pillow's, of large pictures and odd metadata; errors are raised
            try:
                if isinstance(self.content, bytes):
                    file: BinaryIO = io.BytesIO(self.content)
                else:
                    file = files.enter_context(open_regular(self.content, MAX_PICTURE_BYTES))
                picture = files.enter_context(Image.open(file, formats=FORMATS))
            except UnidentifiedImageError as error:
                raise BrokenPicture(
                    f"{self.where}: broken picture: it is none of {', '.join(FORMATS)}"
                ) from error
            except FileRefused as error:
                missing = isinstance(error.__cause__, FileNotFoundError)
                why = "there is no such file" if missing else str(error)
                raise BrokenPicture(f"{self.where}: broken picture: {why}") from error
            except Exception as error:  # Pillow's readers let any exception through
                raise self._broken(error) from error
            if not 1 <= picture.width * picture.height <= MAX_PIXELS:
                raise BrokenPicture(
                    f"{self.where}: {picture.width} x {picture.height} pixels; at most {MAX_PIXELS:,} are "
                    "decoded"
                )
            if picture.info.get("progressive") and (scans := _scans(file)) > MAX_SCANS:
                raise BrokenPicture(
                    f"{self.where}: a JPEG of {scans:,} scans; at most {MAX_SCANS} are decoded"
                )
            yield picture

    def _broken(self, error: Exception) -> BrokenPicture:
        return BrokenPicture(f"{self.where}: broken picture: {error or type(error).__name__}")


def _scans(file: BinaryIO) -> int:
    """Count the scans of a JPEG by its markers."""
    file.seek(0)
    content = file.read()
    scans, position = 0, 2
    while segment := _SEGMENT.search(content, position):
        marker = content[segment.end() - 1]
        if marker == 0xD9:  # the picture's end; phones append a video
            break
        scans += marker == 0xDA
        stands_alone = marker in (0x01, 0xD8)
        length = 0 if stands_alone else int.from_bytes(content[segment.end() : segment.end() + 2], "big")
        position = segment.end() + length
    return scans


def _rotate(picture: Image.Image) -> None:
    with contextlib.suppress(Exception):  # a picture with unreadable EXIF data may be fine
        ImageOps.exif_transpose(picture, in_place=True)


def on_white(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB, independent of its file; transparency becomes white."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        pixels = np.asarray(picture).clip(0, 65535)
        grey = (pixels >> 8).astype(np.uint8)
        transparent = picture.info.get("transparency")  # one of the 65,536 levels
        if isinstance(transparent, int):
            grey[pixels == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    colour = picture.info.get("transparency")
    if picture.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        # a PNG of 16 bits, of which Pillow keeps the upper 8, but not of the colour that is transparent
        picture.info["transparency"] = tuple(level >> 8 for level in colour)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        overlay = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        return Image.alpha_composite(white, overlay).convert("RGB")
    return picture.convert("RGB")
