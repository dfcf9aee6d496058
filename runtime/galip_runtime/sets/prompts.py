"""Readers of prompts: text, JSON lines, CSV and Parquet, streamed, from the start or from a place within.

A place is a byte offset, in Parquet the number of a row. Text is UTF-8, with or without a byte order mark;
lines end with LF or CRLF; blank lines are no prompts. White space around a prompt is dropped.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from galip_runtime.arrays import short_repr
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import open_regular
from galip_runtime.install import install_extra
from galip_runtime.noise import check_seed
from galip_runtime.sets.options import parse_seeds
from galip_runtime.tokenizer import check_prompt

__all__ = ["KINDS", "PromptSource", "Row", "open_prompts"]

PROMPT_COLUMNS = ("prompt", "caption", "text")
"""Names of the column or field of prompts; the first of these that is there."""

_MAX_LINE = 2**24
"""Bytes: of JSON with many other fields."""
_SURELY_TAKEN = 600
"""Characters of a prompt that every tokenizer takes: what it refuses is longer."""
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of surrogate pairs, which JSON can write
_DIGITS = re.compile(r"\d{1,20}", re.ASCII)
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt of a file."""

    place: int
    """where to begin reading to get this prompt first"""
    prompt: str
    seed: int | None = None
    """the first of its seeds"""
    seeds: tuple[int, ...] | None = None
    """all of its seeds"""
    id: str | int | None = None
    """the user's own name for it"""


class PromptSource(Protocol):
    """A file of prompts."""

    path: Path

    def rows(self, place: int | None = None) -> Iterator[Row]:
        """Yield the prompts from `place` on, which is a row's; None for all.

        Raises UsageError, naming the line, for a prompt that cannot be used, FileRefused for a broken file.
        """
        ...


def open_prompts(path: Path) -> PromptSource:
    """Return the reader of a file, by its suffix. Raises UsageError for an unknown one.

    Raises UsageError also for Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        raise UsageError(
            f"{path} is compressed, and prompts are read from many places at once: unpack it first"
        )
    if suffix not in KINDS:
        raise UsageError(
            f"{path}: prompts are read from files that end in {', '.join(KINDS)}; rename or convert it"
        )
    return KINDS[suffix](path)


class _Lines:
    """The decoded lines of a file, with their ends, from a byte on. `start`: the next line's first byte."""

    def __init__(self, path: Path, file: BinaryIO, place: int | None) -> None:
        self._path, self._file = path, file
        self.start, self.number = place or 0, 0
        """`number`: of the line that was read last, from 1 on"""
        if place is None:
            self._skip_mark()
        file.seek(self.start)

    def _skip_mark(self) -> None:
        beginning = self._file.read(3)
        if beginning.startswith(_OTHER_BOMS):
            raise FileRefused(f"{self._path} is UTF-16; save it as UTF-8")
        if beginning == _BOM:
            self.start = len(_BOM)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._file.readline(_MAX_LINE + 1)
        except OSError as error:
            raise FileRefused(f"{self._path} cannot be read ({error.strerror or error})") from error
        if not line:
            raise StopIteration
        self.start += len(line)
        self.number += 1
        if len(line) > _MAX_LINE:
            raise _bad(self._path, self.number, f"has more than {_MAX_LINE:,} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise _bad(
                self._path, self.number, f"is not UTF-8 ({error.reason} at its byte {error.start})"
            ) from error


class _TextFile:
    """A prompt a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, place: int | None = None) -> Iterator[Row]:
        with open_regular(self.path) as file:
            lines = _Lines(self.path, file, place)
            start = lines.start
            for line in lines:
                if line.strip():
                    yield _row(f"{self.path}, line {lines.number}", start, {"prompt": line})
                start = lines.start


class _JsonLines:
    """A JSON object a line: `prompt`, and optionally `seed` or `seeds`, and `id`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, place: int | None = None) -> Iterator[Row]:
        with open_regular(self.path) as file:
            lines = _Lines(self.path, file, place)
            start = lines.start
            for line in lines:
                if line.strip():
                    where = f"{self.path}, line {lines.number}"
                    yield _row(where, start, _parse_object(where, line))
                start = lines.start


class _CsvFile:
    """Comma-separated values. The first record names the columns; a record may have several lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, place: int | None = None) -> Iterator[Row]:
        with open_regular(self.path) as file:
            records = self._records(file, None)
            columns = [name.strip().lower() for name in next(records, (0, 0, [""]))[2]]
            column = _prompt_column(columns)
            if column is None:
                raise UsageError(
                    f"{self.path}: the first line names no column {' or '.join(PROMPT_COLUMNS)}; write the "
                    "columns' names into the first line"
                )
            _check_unique(self.path, columns)
            for start, number, cells in records if place is None else self._records(file, place):
                where = f"{self.path}, line {number}"
                if len(cells) != len(columns):
                    raise UsageError(
                        f"{where} has {len(cells)} cells, and the first line names {len(columns)} columns; "
                        "put a prompt with a comma into quotes"
                    )
                # an empty cell says nothing, except where the prompt should be
                named = zip(columns, cells, strict=True)
                yield _row(where, start, {name: cell for name, cell in named if cell or name == column})

    def _records(self, file: BinaryIO, place: int | None) -> Iterator[tuple[int, int, list[str]]]:
        """Yield place, line number and cells of each record that is not a blank line."""
        lines = _Lines(self.path, file, place)
        reader = csv.reader(lines, strict=True)
        while True:
            start, number = lines.start, lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise _bad(self.path, number, f"is not CSV ({error})") from error
            if len(cells) > 1 or "".join(cells).strip():
                yield start, number, cells


def _check_unique(path: Path, columns: Sequence[str]) -> None:
    """Raise UsageError if two columns that are read have one name."""
    for name in (*PROMPT_COLUMNS, *_OTHER_FIELDS):
        if columns.count(name) > 1:
            raise UsageError(f"{path} has {columns.count(name)} columns {name}; leave one of them")


class _Parquet:
    """A Parquet file: columns as in CSV, or one column of any name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pyarrow.parquet
        except ImportError as error:
            command = install_extra("parquet")
            raise UsageError(
                f"reading {path} needs pyarrow ({error}): {command}, or convert it to CSV"
            ) from error
        self._parquet = pyarrow.parquet
        self._refusals = (pyarrow.ArrowException, OSError)

    def rows(self, place: int | None = None) -> Iterator[Row]:
        with open_regular(self.path) as file:
            try:
                table = self._parquet.ParquetFile(file)
                yield from self._rows(table, place or 0)
            except self._refusals as error:
                raise FileRefused(f"{self.path} cannot be read as Parquet ({error})") from error

    def _rows(self, table: Any, place: int) -> Iterator[Row]:
        columns = table.schema_arrow.names
        prompt = _prompt_column(columns) or (columns[0] if len(columns) == 1 else None)
        if prompt is None:
            raise UsageError(
                f"{self.path} has no column {' or '.join(PROMPT_COLUMNS)}, but {', '.join(columns)}"
            )
        _check_unique(self.path, columns)
        wanted = [name for name in columns if name in (prompt, *_OTHER_FIELDS)]
        groups, first = _groups_from(table.metadata, place)
        batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=wanted)
        for batch in batches:
            if first + len(batch) > place:
                for number, fields in enumerate(self._plain(batch, first), first):
                    if number >= place:
                        fields["prompt"] = fields.pop(prompt)
                        yield _row(f"{self.path}, row {number}", number, fields)
            first += len(batch)

    def _plain(self, batch: Any, first: int) -> list[dict[str, Any]]:
        """Return the rows of a batch whose first is number `first`."""
        try:
            rows: list[dict[str, Any]] = batch.to_pylist()
        except (ValueError, OverflowError) as error:  # text that is not UTF-8, a date beyond Python's
            last = first + len(batch) - 1
            raise FileRefused(
                f"{self.path}: a value of the rows {first} to {last} cannot be read ({error})"
            ) from error
        return rows


def _groups_from(metadata: Any, row: int) -> tuple[list[int], int]:
    """Return the row groups from the one that has `row` on, and the number of their first row."""
    first = 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if row < first + count:
            return list(range(group, metadata.num_row_groups)), first
        first += count
    return [], first


KINDS: Mapping[str, Callable[[Path], PromptSource]] = {
    ".txt": _TextFile,
    ".jsonl": _JsonLines,
    ".csv": _CsvFile,
    ".parquet": _Parquet,
}
"""Readers by suffix."""
_OTHER_FIELDS = ("seed", "seeds", "id")


def _parse_object(where: str, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error})") from error
    if not isinstance(fields, dict) or _prompt_column(fields) is None:
        raise UsageError(f'{where} is not an object with a prompt: write {{"prompt": "…"}}')
    return fields


def _prompt_column(names: Iterable[str]) -> str | None:
    given = list(names)
    return next((name for name in PROMPT_COLUMNS if name in given), None)


def _row(where: str, place: int, fields: Mapping[str, Any]) -> Row:
    """Return a prompt of a file. Raises UsageError, beginning with `where`, if it cannot be used."""
    prompt = fields[_prompt_column(fields) or "prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"{where}: the prompt is {'empty' if isinstance(prompt, str) else 'not text'}")
    prompt = prompt.strip()
    if _NO_TEXT.search(prompt):
        raise UsageError(f"{where}: the prompt {prompt[:40]!a} has a character that is no text")
    seed, seeds, identity = (fields.get(name) for name in _OTHER_FIELDS)
    try:
        if len(prompt) > _SURELY_TAKEN:
            check_prompt(prompt)
        if seed is not None and seeds is not None:
            raise UsageError("there are both seed and seeds: give one of them")
        if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
            raise UsageError(f"the id must be text or a whole number, not {short_repr(identity)}")
        if isinstance(identity, str) and _NO_TEXT.search(identity):
            raise UsageError(f"the id {identity[:40]!a} has a character that is no text")
        return Row(place, prompt, _seed(seed), _seeds(seeds), identity)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _seed(value: object) -> int | None:
    """Return a seed, which may be written as text, as CSV has it."""
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value.strip()):
            raise UsageError(f"a seed must be a whole number, not {value!r:.80}")
        value = int(value)
    return None if value is None else check_seed(value)


def _seeds(value: object) -> tuple[int, ...] | None:
    """Return seeds: a list of JSON or Parquet, or as a command line has them."""
    if value is None:
        return None
    if isinstance(value, str):
        value = list(parse_seeds(value) or ())
    if not isinstance(value, list):
        raise UsageError(f"seeds must be a list of whole numbers, not {short_repr(value)}")
    seeds = tuple(seed for item in value if (seed := _seed(item)) is not None)
    if not seeds or len(set(seeds)) != len(value):
        raise UsageError("seeds must be at least one, and each only once: the same seed is the same picture")
    return seeds


def _bad(path: Path, number: int, reason: str) -> UsageError:
    return UsageError(f"{path}, line {number} {reason}")
