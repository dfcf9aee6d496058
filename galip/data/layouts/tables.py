"""Tables of captions in a plain folder, as people and Hugging Face's imagefolder write them.

    captions.jsonl, metadata.jsonl    an object a line
    captions.csv, metadata.csv        a head, then a line a picture

A line has the picture's path from the table on, as `file` or `file_name`, and `caption`, `text` or a list
`captions`; what else it says is the picture's meta. Captions that are empty or no text are left out of it.
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

Line = tuple[tuple[str, ...] | BrokenPicture | None, dict[str, Any]]
"""Captions, or why there is none, or None if the table says nothing of them; and meta."""


def read_tables(root: Path, files: Iterator[Path], left_out: LeftOut) -> dict[str, Line]:
    """Read what tables say, by the picture's path below `root`. Lines of one picture are joined.

    Raises `FileRefused`, naming the line, for a table that is broken or names something outside its folder.
    """
    table: dict[str, Line] = {}
    for file in files:
        lines = _csv_lines(file, left_out) if file.suffix == ".csv" else _json_lines(file)
        for where, meta in lines:
            name, line = _line(file.parent, meta, where, left_out)
            key = name.relative_to(root).as_posix()
            table[key] = _join(table[key], line) if key in table else line
    return table


def _text(file: Path) -> str:
    try:
        return decode_text(read_regular(file, MAX_LIST_BYTES))
    except ValueError as error:
        raise FileRefused(f"{file} cannot be read: {error}; write it as UTF-8.") from error


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, text in numbered_lines(_text(file)):
        where = f"{file}, line {number}"
        try:
            yield where, dict(parse_json(text.encode()))
        except (ValueError, TypeError) as error:
            raise FileRefused(f"{where} is no JSON object: {error}.") from error


def _csv_lines(file: Path, left_out: LeftOut) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of a table with commas. One that names no pictures is somebody else's: left out."""
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), restkey="")
    try:
        if not {*FILES} & {*(reader.fieldnames or ())}:
            left_out.add(f"tables without a column {FILES[0]} or {FILES[1]}", str(file))
            return
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if "" in row:
                raise FileRefused(
                    f"{where} has more fields than the head; put a caption with commas in quotes."
                )
            texts = {name: value for name, value in row.items() if value is not None}
            yield (
                where,
                {key: text if key in (*FILES, *CAPTIONS) else _cell(text) for key, text in texts.items()},
            )
    except csv.Error as error:
        raise FileRefused(f"{file}, line {reader.line_num}: {error}.") from error


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
    if not isinstance(name, str) or not isinstance(several, list):
        raise FileRefused(f'{where}: write {{"file": "a/b.png", "captions": ["…"]}}.')
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
