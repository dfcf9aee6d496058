"""JSON into frozen dataclasses, nothing guessed: a missing or ill-typed field is refused by its name.

Whatever the text is, reading it neither recurses without end nor takes longer than its length warrants.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import accumulate
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from galip_runtime.errors import FileRefused

__all__ = ["MAX_DEPTH", "parse", "typed"]

MAX_DEPTH = 64
"""objects and lists within one another, at most: what reads or prints a document may recurse over it"""

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_DIGITS = 20  # of the largest
# A string, also one that never ends. Possessive, so that no text makes it go back and try again
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def parse(text: str | bytes) -> Any:
    """Return the value that the JSON `text` writes.

    Raises FileRefused if it is not JSON, and for NaN, a number out of range (whole numbers have 64 bits), a
    key given twice, and more than `MAX_DEPTH` objects and lists within one another.
    """
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        _check_depth(text)
        return json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except ValueError as error:
        raise FileRefused(f"it is not valid JSON ({error})") from error


def typed(kind: Any, value: Any, where: str = "") -> Any:
    """`value`, as `parse` gave it, as the type `kind`.

    `kind`: a dataclass, int, float, str, bool, a union of these and None, Any, Mapping[str, kind],
    tuple[kind, ...] or a tuple of so many of one kind. An object's further fields are ignored. Raises
    FileRefused with the path of the field, `where` first.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        _expect(isinstance(value, dict), value, "an object", where)
        return {
            typed(str, key, where): typed(arguments[1], item, f"{where}.{key}") for key, item in value.items()
        }
    if origin is tuple:
        _expect(isinstance(value, list), value, "a list", where)
        if Ellipsis not in arguments:
            _expect(len(value) == len(arguments), value, f"a list of {len(arguments)}", where)
        return tuple(typed(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind is not Any:
        allowed = arguments or (kind,)
        if float in allowed and type(value) is int:
            _expect(abs(value) <= _LARGEST, value, _NAMES[float], where)
            value = float(value)
        # not isinstance: JSON's true is no whole number
        _expect(type(value) in allowed, value, " or ".join(_NAMES[each] for each in allowed), where)
        if isinstance(value, str):
            _expect(_is_unicode(value), value, "text in Unicode", where)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, "an object", where)
    types = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    missing = [prefix + entry.name for entry in fields(kind) if entry.name not in value]
    if missing:
        raise FileRefused(f"missing: {', '.join(missing):.400}")
    return kind(**{name: typed(types[name], value[name], prefix + name) for name in types})


def _expect(right: bool, value: object, what: str, where: str) -> None:
    if not right:
        raise FileRefused(f"{where or 'it':.200} is {value!r:.80}; {what} would be right")


def _is_unicode(text: str) -> bool:
    """Whether it can be written: half of a surrogate pair, which JSON's escapes may give, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_depth(text: str) -> None:
    """Raise ValueError for more than `MAX_DEPTH` brackets within one another, those in strings aside."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text))
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ValueError(f"objects and lists lie more than {MAX_DEPTH} deep within one another")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is there twice")
    return data


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS or not _SMALLEST <= int(digits) <= _LARGEST:
        raise ValueError(f"{digits:.40} is out of range: whole numbers have at most 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.40} is out of range")
    return number


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
