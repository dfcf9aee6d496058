"""Encoded pictures, bytes or a file, to RGB; whatever is wrong with one is a `BrokenPicture`."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from galip_runtime.errors import FileRefused
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["MAX_BROKEN", "MAX_PIXELS", "BrokenPicture", "EncodedPicture", "on_white"]

MAX_PIXELS = 100_000_000
"""A larger picture is taken for a decompression bomb."""

MAX_BROKEN = 0.01
"""Share of broken pictures above which training stops, if not told otherwise."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What is decoded, whatever the file's ending says; none of these starts another program."""

Box = tuple[int, int, int, int]


class BrokenPicture(FileRefused):
    """One picture can't be decoded or has no caption; a training run counts and skips it."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture that is not decoded yet."""

    where: str
    """Names it in errors."""
    content: bytes | Path
    upright: bool = True
    """Turned as its EXIF data says; the released data loaders of CUB and COCO don't."""

    def size(self) -> tuple[int, int]:
        """(width, height) as stored; reads the head of the file only. Raises `BrokenPicture`."""
        with self._opened() as picture:
            return picture.size

    def decode(self) -> Image.Image:
        """RGB, transparency laid on white. Raises `BrokenPicture`."""
        with self._opened() as picture:
            try:
                picture.load()
                if self.upright:
                    _turn(picture)
                return on_white(picture)
            except Exception as error:  # Pillow's decoders let through whatever they trip over
                raise self._broken(error) from error

    def _opened(self) -> Image.Image:
        source = io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content
        try:
            picture = Image.open(source, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise BrokenPicture(f"{self.where}: broken picture: no PNG, JPEG, WebP, GIF or BMP") from error
        except FileNotFoundError as error:
            raise BrokenPicture(f"{self.where}: broken picture: there is no such file") from error
        except Exception as error:
            raise self._broken(error) from error
        if picture.width * picture.height > MAX_PIXELS:
            picture.close()
            raise BrokenPicture(
                f"{self.where}: {picture.width} x {picture.height} pixels; at most {MAX_PIXELS:,} are decoded"
            )
        return picture

    def _broken(self, error: Exception) -> BrokenPicture:
        return BrokenPicture(f"{self.where}: broken picture: {error or type(error).__name__}")


def _turn(picture: Image.Image) -> None:
    with contextlib.suppress(Exception):  # EXIF data that can't be read says nothing against the picture
        ImageOps.exif_transpose(picture, in_place=True)


def on_white(picture: Image.Image) -> Image.Image:
    """RGB of a picture of any mode, decoded and independent of its file; transparency becomes white."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        grey = np.asarray(picture).astype(np.int64) >> 8
        picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")
