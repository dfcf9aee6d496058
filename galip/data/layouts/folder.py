"""A plain folder: pictures at any depth, captions in same-named text files or in one table.

    a/b.png   a/b.txt, one caption a line
    captions.jsonl (or metadata.jsonl, as Hugging Face's imagefolder has it), one picture a line:
    {"file": "a/b.png", "captions": ["…", "…"]}; also "file_name" for "file", "caption" or "text" for one

Folders train/, val/ and test/ are splits, if there; else all is `train`. The table lies beside them, or in
each one. A table's captions go before a text file's; what else a line says is the picture's meta. A picture
without captions is a broken one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused

from galip.data.decode import BrokenPicture
from galip.data.layouts.files import FileSource, caption_lines

__all__ = ["fits", "has_captions", "open_split", "pictures_below", "splits"]

LOOKED_FOR = "pictures (.png, .jpg, .jpeg, .webp) at any depth, with same-named .txt or a captions.jsonl"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
TABLES = ("captions.jsonl", "metadata.jsonl")
SHOWN = 5

Line = tuple[tuple[str, ...] | BrokenPicture, dict[str, Any]]


def pictures_below(folder: Path) -> Iterator[Path]:
    """All pictures below, hidden files and folders left out, in a fixed order."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                yield Path(parent, name)


def fits(path: Path) -> bool:
    """Whether there is any picture."""
    return next(pictures_below(path), None) is not None


def has_captions(path: Path) -> bool:
    """Whether there is any text file or table of captions."""
    return (
        next((file for file in path.rglob("*") if file.name in TABLES or file.suffix == ".txt"), None)
        is not None
    )


def splits(path: Path) -> list[str]:
    """Folders of that name that hold pictures; else only `train`."""
    return [split for split in ("train", "val", "test") if next(pictures_below(path / split), None)] or [
        "train"
    ]


class FolderSource(FileSource):
    """Keys are paths within the folder."""

    layout = "folder"
    upright = True

    def __init__(self, split: str, root: Path, found: dict[str, Line]) -> None:
        super().__init__(split, list(found))
        self._root, self._found = root, list(found.values())

    def file(self, index: int) -> Path:
        """The key is the path."""
        return self._root / self.keys[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """As read at the start. Raises `BrokenPicture` where there were none."""
        captions = self._found[index][0]
        if isinstance(captions, BrokenPicture):
            raise BrokenPicture(str(captions))
        return captions

    def meta(self, index: int) -> dict[str, Any]:
        """What else the table says."""
        return self._found[index][1]


def open_split(path: Path, split: str) -> FolderSource:
    """Raises `FileRefused`: a table is broken or names a missing picture, or no picture has a caption."""
    folder = path / split if next(pictures_below(path / split), None) else path
    table = {
        name: line
        for place in dict.fromkeys((path, folder))
        for file in TABLES
        if (place / file).is_file()
        for name, line in _table(path, place / file).items()
    }
    found: dict[str, Line] = {}
    for picture in pictures_below(folder):
        name = picture.relative_to(path).as_posix()
        found[name] = table[name] if name in table else (_captions_beside(picture), {})
    if all(isinstance(captions, BrokenPicture) for captions, _ in found.values()):
        raise FileRefused(
            f"{folder}: none of {len(found)} pictures has a readable caption: {', '.join([*found][:SHOWN])}. "
            "Put a text file of the same name beside each (picture.txt, UTF-8, one caption a line) or a line "
            f"in {TABLES[0]}."
        )
    return FolderSource(split, path, found)


def _captions_beside(picture: Path) -> tuple[str, ...] | BrokenPicture:
    try:
        return caption_lines(picture.with_suffix(".txt"))
    except BrokenPicture as error:
        return error


def _table(root: Path, file: Path) -> dict[str, Line]:
    """Captions and meta by the picture's path below `root`. Raises `FileRefused`, naming the line."""
    found: dict[str, Line] = {}
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise FileRefused(f"{file} cannot be read: {error}; write it as UTF-8.") from error
    for number, text in enumerate(lines, 1):
        if text.strip():
            name, line = _line(file.parent, text, f"{file}, line {number}")
            found[name.relative_to(root).as_posix()] = line
    return found


def _line(folder: Path, text: str, where: str) -> tuple[Path, Line]:
    try:
        document = json.loads(text)
        meta = dict(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise FileRefused(f"{where} is no JSON object: {error}.") from error
    name = meta.pop("file", meta.pop("file_name", None))
    one = meta.pop("caption", meta.pop("text", None))
    several = meta.pop("captions", [one])
    if not isinstance(name, str) or not isinstance(several, list):
        raise FileRefused(f'{where}: write {{"file": "a/b.png", "captions": ["…"]}}.')
    if not all(isinstance(caption, str) and caption.strip() for caption in several) or not several:
        raise FileRefused(f"{where}: {name} has no caption, or one that is empty or no text.")
    picture = Path(os.path.normpath(folder / name))
    if not picture.is_relative_to(folder):
        raise FileRefused(f"{where}: {name} lies outside {folder}; name pictures within it.")
    if not picture.is_file():
        raise FileRefused(f"{where}: there is no picture {name} in {folder}; correct or remove the line.")
    return picture, (tuple(caption.strip() for caption in several), meta)
