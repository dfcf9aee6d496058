"""Read text from people's files: captions, lists and JSON, in the encodings and line endings that occur."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular
from galip_runtime.tokenizer import check_prompt

__all__ = [
    "MAX_LIST_BYTES",
    "UNUSABLE",
    "check_captions",
    "decode_text",
    "lines_of",
    "numbered_lines",
    "parse_json",
    "read_captions",
    "read_json",
    "usable_captions",
]

UNUSABLE = "captions that are empty or no text"
"""Kind of what is left out of a picture's captions: some others remain, or else the picture is broken."""
MAX_LIST_BYTES = 2**30
"""Of a list or table of a whole data set."""

MAX_SURELY_TAKEN = 600
"""Characters of a caption that every tokenizer takes, whatever they are. Those refused are longer, such as
a character reference of more digits than Python converts (640 at least), however its "&" is written.
"""

_LINE_END = re.compile(r"\r\n|\r|\n")  # not U+2028 and the like, which occur within captions
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of surrogate pairs, which JSON can write
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(content: bytes) -> str:
    """Decode a file's content: UTF-8, or UTF-16 with a byte order mark, which is dropped.

    Raises ValueError for another encoding.
    """
    return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")


def lines_of(text: str) -> list[str]:
    """Return the lines of `text`, stripped and without blank ones."""
    return [line for _, line in numbered_lines(text)]


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines of `lines_of` with their numbers, from 1 on; blank lines count."""
    lines = enumerate(_LINE_END.split(text), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def check_captions(captions: Iterable[str]) -> tuple[str, ...]:
    """Return `captions` stripped.

    Raises ValueError if there is none, or one is empty, not text, or refused by every tokenizer.
    """
    texts = []
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError("a caption is empty or not text")
        if _NO_TEXT.search(caption):
            raise ValueError(f"the caption {caption[:40]!a} has a character that is no text")
        if len(caption) > MAX_SURELY_TAKEN:
            check_prompt(caption)
        texts.append(caption.strip())
    if not texts:
        raise ValueError("there is no caption")
    return tuple(texts)


def usable_captions(captions: Iterable[object]) -> tuple[tuple[str, ...], list[object]]:
    """Return the captions that are texts, as `check_captions`, and the others: empty ones, null, numbers.

    Raises ValueError if no text is left, or a tokenizer would refuse one.
    """
    texts: list[str] = []
    others: list[object] = []
    for caption in captions:
        if isinstance(caption, str) and caption.strip():
            texts.append(caption)
        else:
            others.append(caption)
    return check_captions(texts), others


def read_captions(file: Path) -> tuple[str, ...]:
    """Read a file that a user names, a caption a line. Raises `UsageError` if it is something else."""
    try:
        lines = lines_of(decode_text(read_regular(file, MAX_LIST_BYTES)))
        return check_captions(lines) if lines else ()
    except (FileRefused, ValueError) as error:
        raise UsageError(f"cannot read {file}: {error}; give a text file, a caption a line") from error


def parse_json(content: bytes) -> Any:
    """Parse JSON `content`, as lenient as the programs that write data sets: NaN and repeated keys pass.

    Raises ValueError, also for a value that is nested too deeply.
    """
    try:
        return json.loads(decode_text(content))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(file: Path, limit: int = MAX_LIST_BYTES) -> Any:
    """Parse the JSON `file`. Raises ValueError, and FileRefused as `read_regular`."""
    return parse_json(read_regular(file, limit))
