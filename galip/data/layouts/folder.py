"""A plain folder: pictures at any depth, captions in same-named text files or in one table.

    a/b.png   a/b.txt, one caption a line
    captions.jsonl (or metadata.jsonl or metadata.csv, as Hugging Face's imagefolder has it), one picture a
    line: {"file": "a/b.png", "captions": ["…", "…"]}; also "file_name", and "caption" or "text" for one

Folders train/, val/ (or valid/, validation/) and test/ are splits if they are the only ones with pictures or
there are two of them; otherwise everything is `train`, and a folder called train is a class like others. The
tables are beside them, or at any depth. A table's captions override a text file's; what else a line says is
the picture's meta; lines of one picture are joined. A picture without captions is broken, and so is a line
whose picture is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused

from galip.data.decode import PICTURE_ENDINGS, BrokenPicture
from galip.data.layouts.file_source import FileSource, caption_lines, composed_name, text_file
from galip.data.layouts.layout import Layout
from galip.data.layouts.tables import TABLES, read_tables
from galip.data.left_out import LeftOut
from galip.data.shard_folder import SET_FILE

__all__ = [
    "ENDINGS",
    "LAYOUT",
    "NoCaptions",
    "has_captions",
    "left_out_below",
    "pictures_below",
    "split_folders",
]

ENDINGS = tuple(f".{ending}" for ending in PICTURE_ENDINGS)
SPLITS = ("train", "val", "valid", "validation", "test")
MAX_EXAMPLES = 5

Sample = tuple[tuple[str, ...] | BrokenPicture, dict[str, Any]]


class NoCaptions(FileRefused):
    """A folder of pictures of which none has a caption."""


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield all pictures below `folder`, except in hidden files and folders, in a fixed order.

    Raises OSError for a folder that cannot be read.
    """
    return (file for file in _files_below(folder) if file.name.lower().endswith(ENDINGS))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def left_out_below(folder: Path, others: list[str], used: set[Path]) -> LeftOut:
    """Count what below `folder` is not read, and the pictures in the folders `others`. `used`: pictures."""
    captioned = {composed_name(str(picture.with_suffix(""))) for picture in used}
    left_out = LeftOut()
    for parent, folders, files in os.walk(folder, onerror=_raise):
        shown = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in sorted(folders):
            path = Path(parent, name)
            if path.is_symlink():
                left_out.add("linked folders, which are not followed", _below(folder, path))
            if name not in shown:
                left_out.add("hidden files and folders", _below(folder, path))
        for name in sorted(name for name in files if name.startswith(".")):
            left_out.add("hidden files and folders", _below(folder, Path(parent, name)))
        folders[:] = shown
    for file in _files_below(folder):
        ending = file.suffix.lower()
        if ending == ".txt":
            if composed_name(str(file.with_suffix(""))) not in captioned:
                left_out.add("text files without a picture", _below(folder, file))
        elif ending not in ENDINGS and file.name not in (*TABLES, SET_FILE) and file not in used:
            kind = f"files ending in {ending}" if ending else "files without an ending"
            left_out.add(kind, _below(folder, file))
    for name in others:
        for picture in pictures_below(folder.parent / name):
            left_out.add(f"pictures in {name}/, which is no split", _below(folder.parent, picture))
    return left_out


def _below(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def matches(path: Path) -> bool:
    """Return whether there is any picture."""
    return next(pictures_below(path), None) is not None


def has_captions(path: Path) -> bool:
    """Return whether there is any text file or table of captions."""
    return (
        next((file for file in path.rglob("*") if file.name in TABLES or file.suffix.lower() == ".txt"), None)
        is not None
    )


def list_splits(path: Path) -> list[str]:
    """Return the folders that are splits, or else only `train`."""
    return split_folders(path) or ["train"]


def split_folders(path: Path) -> list[str]:
    """Return those of `SPLITS` that are splits; none if `train` may as well be one class of several."""
    folders = [split for split in SPLITS if next(pictures_below(path / split), None)]
    return folders if len(folders) > 1 or not _beside_splits(path) else []


def _beside_splits(path: Path) -> list[str]:
    """Return what else in `path` holds pictures: names of folders, "." for `path` itself."""
    if not path.is_dir():
        return []
    names = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name not in SPLITS]
    shown = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
    beside = [name for name in shown if next(pictures_below(path / name), None)]
    own = (entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return beside + ["."] * any(entry.name.lower().endswith(ENDINGS) for entry in own)


class FolderSource(FileSource):
    """A split of a plain folder. Keys are paths within the folder."""

    layout = "folder"
    upright = True

    def __init__(self, split: str, root: Path, lines: dict[str, Sample]) -> None:
        super().__init__(split, list(lines))
        self._root, self._lines = root, list(lines.values())

    def file(self, index: int) -> Path:
        """Return the file: its key is its path."""
        return self._root / self.keys[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions, read when the folder was opened. Raises `BrokenPicture` if there are none."""
        captions = self._lines[index][0]
        if isinstance(captions, BrokenPicture):
            raise BrokenPicture(str(captions))
        return captions

    def meta(self, index: int) -> dict[str, Any]:
        """Return what else the table says."""
        return self._lines[index][1]


def open_split(path: Path, split: str) -> FolderSource:
    """Open a split.

    Raises `FileRefused` if a table is broken, `NoCaptions` if no picture has a caption.
    """
    is_split = split in split_folders(path)
    folder = path / split if is_split else path
    left_out = LeftOut()
    table = read_tables(path, _tables(path, folder), left_out)
    lines: dict[str, Sample] = {}
    for picture in pictures_below(folder):
        name = picture.relative_to(path).as_posix()
        captions, meta = table.get(name, (None, {}))
        lines[name] = (_captions_beside(picture) if captions is None else captions), meta
    for name, (captions, meta) in table.items():  # also of other endings, behind links, or missing: broken
        if name not in lines and (path / name).is_relative_to(folder):
            lines[name] = (_captions_beside(path / name) if captions is None else captions), meta
    if all(isinstance(captions, BrokenPicture) for captions, _ in lines.values()):
        raise NoCaptions(
            f"{folder}: none of {len(lines)} pictures has a readable caption: "
            f"{', '.join([*lines][:MAX_EXAMPLES])}. "
            "Put a text file of the same name beside each (picture.txt, UTF-8, one caption a line) or a line "
            f"in {TABLES[0]}."
        )
    source = FolderSource(split, path, lines)
    left_out.add_all(
        left_out_below(folder, _beside_splits(path) if is_split else [], {path / name for name in lines})
    )
    source.left_out = left_out
    return source


def _tables(path: Path, folder: Path) -> Iterator[Path]:
    """Yield the tables of `path` itself and at any depth of its split `folder`."""
    if folder != path:
        yield from (path / name for name in TABLES if os.path.lexists(path / name))
    yield from (file for file in _files_below(folder) if file.name in TABLES)


def _captions_beside(picture: Path) -> tuple[str, ...] | BrokenPicture:
    try:
        return caption_lines(text_file(picture.parent, picture.stem))
    except BrokenPicture as error:
        return error


LAYOUT = Layout(
    contents="pictures (.png, .jpg, .webp, .gif, .bmp, .avif) at any depth, with same-named .txt or a "
    "captions.jsonl or metadata.csv",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
)
