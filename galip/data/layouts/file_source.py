"""What layouts with a file for each picture share: keys, caption files, and the source over them."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from galip_runtime.errors import FileRefused
from galip_runtime.files import read_regular

from galip.data.captioned import CaptionedPicture
from galip.data.decode import Box, BrokenPicture, EncodedPicture
from galip.data.left_out import LeftOut
from galip.data.texts import MAX_LIST_BYTES, check_captions, decode_text, lines_of

__all__ = [
    "FileSource",
    "caption_lines",
    "check_key",
    "composed_name",
    "find_spelled",
    "first_file",
    "read_lines",
    "text_file",
]

MAX_CAPTION_BYTES = 2**20
MAX_NAME_BYTES = 255
"""Of one file or folder name; no common file system allows more."""


class FileSource(ABC):
    """A split with a file for each picture. A layout says where a picture and its captions are."""

    layout = ""
    upright = False

    def __init__(self, split: str, keys: Sequence[str]) -> None:
        self.split, self.keys = split, keys
        self.left_out = LeftOut()

    @abstractmethod
    def file(self, index: int) -> Path:
        """Return the file of picture `index`."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of picture `index`. Raises `BrokenPicture` if there is none."""

    def meta(self, index: int) -> dict[str, Any]:
        """Return what else is known: nothing, by default."""
        return {}

    def box(self, index: int, width: int, height: int) -> Box | None:
        """Return the crop of picture `index`, (left, top, right, bottom) in pixels; None: all of it."""
        return None

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """Return the name of picture `index`."""
        return self.keys[index]

    def encoded(self, index: int) -> EncodedPicture:
        """Return picture `index` as stored."""
        file = self.file(index)
        return EncodedPicture(str(file), file, self.upright)

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Decode and crop picture `index`. Raises `BrokenPicture`."""
        captions = self.captions(index)
        picture = self.encoded(index).decode()
        if box := self.box(index, *picture.size):
            if box[0] >= box[2] or box[1] >= box[3]:
                raise BrokenPicture(
                    f"{self.file(index)}: its box {box} holds nothing of {picture.width} x {picture.height} "
                    "pixels; was the picture resized without its box?"
                )
            picture = picture.crop(box)
        return CaptionedPicture(self.keys[index], picture, captions, self.meta(index))


def check_key(key: str, where: str) -> str:
    """Return `key` with Windows' backslashes turned, if it is a path within the data set.

    Raises `FileRefused` if it leads elsewhere.
    """
    slashed = key.replace("\\", "/")
    path = PurePosixPath(slashed)
    try:
        lengths = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:  # half of a surrogate pair, which no file's name has
        lengths = []
    leads_away = path.is_absolute() or ".." in path.parts or ":" in key[:2]
    if not lengths or max(lengths) > MAX_NAME_BYTES or "\0" in key or leads_away:
        raise FileRefused(
            f"{where}: {key[:80]!r} is no name within the data set: a path must be relative and without "
            f"'..', each part of at most {MAX_NAME_BYTES} bytes. Don't use this list."
        )
    return slashed


def first_file(folder: Path, *names: str) -> Path:
    """Return the first of the files `names` in `folder` that exists, or else the first of all."""
    for name in names:
        file = find_spelled(folder, name)
        if os.path.isfile(file):
            return file
    return folder / names[0]


def find_spelled(folder: Path, name: str) -> Path:
    """Return the path `name` in `folder` as the disk spells it; as given, if there is none.

    A name with other code points for the same letters counts: macOS writes "é" as two, lists as one.
    """
    given = folder / name
    if name.isascii() or os.path.lexists(given):
        return given
    path = folder
    for part in PurePosixPath(name).parts:
        spellings = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        found = next((spelling for spelling in spellings if os.path.lexists(path / spelling)), None)
        if found is None:
            return given
        path /= found
    return path


def text_file(folder: Path, *stems: str) -> Path:
    """Return the first of the text files STEM.txt in `folder` that exists, or else the first of all."""
    return first_file(folder, *(f"{stem}.{ending}" for stem in stems for ending in ("txt", "TXT", "Txt")))


def read_lines(file: Path) -> list[str]:
    """Read the lines of a list, without blank ones. Raises `FileRefused` if it is missing or not UTF-8."""
    try:
        return lines_of(decode_text(read_regular(file, MAX_LIST_BYTES)))
    except ValueError as error:
        raise FileRefused(f"{file} cannot be read: {error}. Fetch the data set again.") from error


def caption_lines(file: Path) -> tuple[str, ...]:
    """Read captions, one a line, without blank lines.

    A doubled U+FFFD, which CUB's captions have for some spaces, becomes a space, as in the released code.
    Raises `BrokenPicture` if there is no caption, if it isn't text, or for more than a megabyte.
    """
    try:
        text = decode_text(read_regular(file, MAX_CAPTION_BYTES)).replace("\ufffd\ufffd", " ")
        return check_captions(lines_of(text))
    except (FileRefused, ValueError) as error:
        raise BrokenPicture(f"{file}: no readable caption: {error}") from error


def composed_name(name: str) -> str:
    """Return `name` in Unicode's composed form, in which names from different file systems are equal."""
    return unicodedata.normalize("NFC", name)
