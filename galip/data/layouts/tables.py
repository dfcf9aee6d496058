"""Tables of captions in a plain folder, as people and Hugging Face's imagefolder write them.

    captions.jsonl, metadata.jsonl    an object a line
    captions.csv, metadata.csv        a head, then a line a picture

A line has the picture's path from the table on, as `file` or `file_name`, and `caption`, `text` or a list
`captions`; what else it says is the picture's meta. Captions that are empty or no text are left out of it.
A malformed line is left out; if nothing else has a caption of its picture, that picture is broken.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused
from galip_runtime.files import read_regular

from galip.data.decode import BrokenPicture
from galip.data.layouts.file_source import check_key, find_spelled
from galip.data.left_out import LeftOut
from galip.data.texts import (
    MAX_LIST_BYTES,
    UNUSABLE,
    decode_text,
    numbered_lines,
    parse_json,
    usable_captions,
)

__all__ = ["TABLES", "Line", "read_tables"]

TABLES = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
FILES, CAPTIONS = ("file", "file_name"), ("caption", "text", "captions")
NO_OBJECT = "that are no JSON object"

Line = tuple[tuple[str, ...] | BrokenPicture | None, dict[str, Any]]
"""Captions, or why there is none, or None if the table says nothing of them; and meta."""


class _MalformedLine(ValueError):
    """A line that says nothing usable."""

    def __init__(self, kind: str, reason: object) -> None:
        """`kind`: names such lines in `LeftOut`; `reason`: what is wrong with this one."""
        super().__init__(str(reason))
        self.kind = f"lines of tables {kind}"


def read_tables(root: Path, files: Iterator[Path], left_out: LeftOut) -> dict[str, Line]:
    """Read what tables say, by the picture's path below `root`. Lines of one picture are joined.

    Malformed lines are counted in `left_out`, with their numbers. Raises `FileRefused` for a table that is
    no UTF-8 or has malformed lines only, and for a line that names something outside the table's folder.
    """
    table: dict[str, Line] = {}
    for file in files:
        for name, line in _lines_of_table(file, root, left_out):
            key = name.relative_to(root).as_posix()
            table[key] = _join(table[key], line) if key in table else line
    return table


def _lines_of_table(file: Path, root: Path, left_out: LeftOut) -> Iterator[tuple[Path, Line]]:
    """Yield the pictures that a table names, and what it says of them."""
    is_usable, first_malformed = False, ""
    lines = _csv_lines(file, left_out) if file.suffix == ".csv" else _json_lines(file)
    for number, content in lines:
        try:
            if isinstance(content, _MalformedLine):
                raise content
            yield _line(file.parent, content, f"{file}, line {number}", left_out)
            is_usable = True
        except _MalformedLine as error:
            left_out.add(error.kind, f"{file.relative_to(root).as_posix()}, line {number}: {error}")
            first_malformed = first_malformed or f"{file}, line {number}: {error}"
    if first_malformed and not is_usable:
        raise FileRefused(
            f"{first_malformed}; nor can another line be used. Write "
            '{"file": "a/b.png", "captions": ["…"]} in a .jsonl, file_name,text in a .csv.'
        )


def _text(file: Path) -> str:
    try:
        return decode_text(read_regular(file, MAX_LIST_BYTES))
    except ValueError as error:
        raise FileRefused(f"{file} cannot be read: {error}; write it as UTF-8.") from error


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | _MalformedLine]]:
    """Yield the lines' numbers and objects."""
    for number, text in numbered_lines(_text(file)):
        try:
            line = parse_json(text.encode())
            yield number, line if isinstance(line, dict) else _MalformedLine(NO_OBJECT, f"it is {text:.40}")
        except ValueError as error:
            yield number, _MalformedLine(NO_OBJECT, getattr(error, "msg", error))


def _csv_lines(file: Path, left_out: LeftOut) -> Iterator[tuple[int, dict[str, Any] | _MalformedLine]]:
    """Yield the lines of a table with commas. One that names no pictures is somebody else's: left out."""
    rows = _csv_rows(file)
    _, head = next(rows, (0, []))
    if isinstance(head, _MalformedLine) or not {*FILES} & {*head}:
        left_out.add(f"tables without a column {FILES[0]} or {FILES[1]}", str(file))
        return
    for number, cells in rows:
        if isinstance(cells, _MalformedLine):
            yield number, cells
        elif len(cells) != len(head):
            reason = f"{len(cells)} cells, the head has {len(head)}; quote a caption with commas"
            yield number, _MalformedLine("with more or fewer cells than the head", reason)
        else:
            texts = zip(head, cells, strict=True)
            yield number, {key: text if key in (*FILES, *CAPTIONS) else _cell(text) for key, text in texts}


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str] | _MalformedLine]]:
    """Yield the rows that have any text, each with the number of its last line."""
    reader = csv.reader(io.StringIO(_text(file), newline=""))
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a cell of over 128 KiB, such as one whose quotes are never closed
            yield reader.line_num, _MalformedLine("that are no CSV", error)
            continue
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _cell(text: str) -> str | float:
    """Return the number that a cell says, for conditions on the meta, or its text."""
    with contextlib.suppress(ValueError):
        number = float(text) if "." in text else int(text)
        if str(number) == text:
            return number
    return text


def _join(first: Line, second: Line) -> Line:
    """Join two lines of one picture: the captions of both, if both have some."""
    (captions, meta), (others, more) = first, second
    if isinstance(captions, tuple) and isinstance(others, tuple):
        return tuple(dict.fromkeys(captions + others)), meta | more
    return (captions if isinstance(captions, tuple) else others or captions), meta | more


def _line(folder: Path, meta: dict[str, Any], where: str, left_out: LeftOut) -> tuple[Path, Line]:
    name = _pop_first(meta, FILES)
    says_captions = any(key in meta for key in CAPTIONS)
    one = _pop_first(meta, CAPTIONS[:2])
    several = meta.pop("captions", [one])
    several = [several] if isinstance(several, str) else several
    if not isinstance(name, str) or not name.strip():
        raise _MalformedLine("without a picture's name", f"the name is {name!r:.40}")
    if not isinstance(several, list):
        raise _MalformedLine("whose captions are no list", f"they are {several!r:.40}")
    picture = _picture_named(folder, name, where)
    if not os.path.lexists(picture):
        return picture, (BrokenPicture(f"{where}: there is no picture {name:.200} in {folder}"), meta)
    if not says_captions:
        return picture, (None, meta)
    try:
        captions, others = usable_captions(several)
    except ValueError as error:
        return picture, (BrokenPicture(f"{where}: {name}: {error}"), meta)
    for other in others:
        left_out.add(UNUSABLE, f"{name}: {other!r}")
    return picture, (captions, meta)


def _pop_first(meta: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Remove `names` from `meta` and return the first value that is there."""
    values = [meta.pop(name) for name in names if name in meta]
    return values[0] if values else None


def _picture_named(folder: Path, name: str, where: str) -> Path:
    """Return the picture that a table calls `name`, also with backslashes, or composed otherwise (macOS)."""
    if os.path.lexists(folder / name) and Path(name).is_absolute() and (folder / name).is_relative_to(folder):
        return folder / name
    return find_spelled(folder, check_key(posixpath.normpath(name.replace("\\", "/")), where))
