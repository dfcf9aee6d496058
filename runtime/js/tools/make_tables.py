"""Write `src/text/tables.ts`: what Python's tokenizer gets from Unicode's tables, `regex`, `html` and ftfy.

    python runtime/js/tools/make_tables.py

JavaScript engines follow other versions of Unicode than Python. With these tables the ids are equal in all.
"""

import html.entities
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import regex
from ftfy import badness, chardata

TARGET = Path(__file__).parents[1] / "src" / "text" / "tables.ts"
_ALL = range(sys.maxunicode + 1)
_SPACES = "".join(chr(code) for code in _ALL if chr(code).isspace())
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def versions() -> dict[str, str]:
    """Return the versions of what the tables are taken from."""
    return {"unicode": unicodedata.unidata_version, "regex": version("regex"), "ftfy": version("ftfy")}


def tables() -> dict[str, object]:
    """Return every table by its name in TypeScript."""
    letters, numbers, others = (
        _codes(regex.compile(pattern, regex.IGNORECASE).fullmatch)
        for pattern in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]")
    )
    assigned = _codes(lambda character: unicodedata.category(character) != "Cn")
    spaces = _codes(re.compile(r"\s").fullmatch)
    # `regex` puts these into none of its three classes, so that the tokenizer skips them
    skipped = {*_ALL} - letters - numbers - others - spaces
    assert {code for code in _ALL if chr(code).isalnum()} == (letters | numbers) & assigned
    return {
        "VERSIONS": versions(),
        "ASSIGNED": _ranges(assigned),
        "LETTERS": _ranges(letters),
        "NUMBERS": _ranges(numbers),
        "SKIPPED": _ranges(skipped),
        "SPACES": _SPACES,
        "ENTITIES": _entities(),
        "ENTITIES_WITHOUT_SEMICOLON": " ".join(
            name for name in sorted(html.entities.html5) if name[-1] != ";"
        ),
        "ENCODINGS": {name: _upper_half(name) for name in chardata.CHARMAP_ENCODINGS},
        "LIGATURES": {chr(code): text for code, text in chardata.LIGATURES.items()},
        "BADNESS": _javascript(badness.BADNESS_RE.pattern),
        "UTF8_DETECTOR": _javascript(chardata.UTF8_DETECTOR_RE.pattern),
    }


def source() -> str:
    """Return the module's text."""
    head = "// Written by tools/make_tables.py. Parts are from ftfy (Apache-2.0, see NOTICE).\n"
    rows = (f"export const {name} = {_literal(value)};\n" for name, value in tables().items())
    return head + "\n" + "\n".join(rows)


def _literal(value: object) -> str:
    return json.dumps(value, indent=2 if isinstance(value, dict) else None)


def _codes(matches: Callable[[str], object]) -> set[int]:
    return {code for code in _ALL if matches(chr(code))}


def _ranges(codes: Iterable[int]) -> str:
    """Encode a set of numbers: how many are out, how many are in, and so on, in base 36."""
    lengths, end = [], 0
    for code in sorted(codes):
        if code != end or not lengths:
            lengths += [code - end, 0]
        lengths[-1] += 1
        end = code + 1
    return " ".join(map(_base36, lengths))


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _entities() -> str:
    """Return the names of HTML's characters, each followed by its characters, separated by spaces."""
    items = [(name[:-1], text) for name, text in sorted(html.entities.html5.items()) if name[-1] == ";"]
    # a few stand for white space: all are written as numbers
    return " ".join(f"{name} {'+'.join(_base36(ord(one)) for one in text)}" for name, text in items)


def _upper_half(encoding: str) -> str:
    """Return what the bytes 0x80 to 0xFF decode to."""
    text = bytes(range(0x80, 0x100)).decode(encoding)
    assert len(set(text)) == 128
    return text


def _javascript(pattern: str) -> str:
    """Translate a verbose regular expression for JavaScript's flag `u`."""
    parts, position, in_class = [], 0, False
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "\\":
            escape = character + pattern[position]
            position += 1
            parts.append({r"\s": f"[{_escaped(_SPACES)}]", r"\w": "[\\p{Word}]"}.get(escape, escape))
        elif in_class or character == "[":
            in_class = character != "]"
            parts.append(character)
        elif character == "#":
            position = pattern.find("\n", position)
        elif character == ".":
            parts.append(r"[^\n]")
        elif not character.isspace():
            parts.append(character)
    return "".join(parts)


def _escaped(text: str) -> str:
    return "".join(f"\\u{{{ord(character):x}}}" for character in text)


if __name__ == "__main__":
    TARGET.write_text(source(), encoding="utf-8")
