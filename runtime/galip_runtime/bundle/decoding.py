"""Strict decoding of JSON into frozen dataclasses: a missing or ill-typed field is refused by name.

Whatever the text, reading it neither recurses without bound nor takes longer than its length warrants.
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
"""the most levels of nested objects and lists: code that reads or prints a document may recurse over it"""

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_MAX_DIGITS = 20  # of the largest, and of the smallest with its sign
# A string, closed or not. The quantifiers are possessive, so that no text makes the regex backtrack
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def parse(text: str | bytes) -> Any:
    """Return the value of the JSON `text`.

    Raises FileRefused if it is not JSON, and for NaN, a number out of range (whole numbers have 64 bits), a
    duplicate key, and objects and lists nested more than `MAX_DEPTH` deep.
    """
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        _check_depth(text)
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except ValueError as error:
        raise FileRefused(f"it is not valid JSON ({error})") from error


def typed(kind: Any, value: Any, where: str = "") -> Any:
    """Return `value`, a result of `parse`, as the type `kind`.

    `kind`: a dataclass, int, float, str, bool, a union of these and None, Any, Mapping[str, kind],
    tuple[kind, ...] or a tuple of a fixed number of one kind. An object's other fields are ignored. Raises
    FileRefused with the path of the field, which begins with `where`.
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
        # not isinstance: JSON's true is not a whole number
        _expect(type(value) in allowed, value, " or ".join(_NAMES[type_] for type_ in allowed), where)
        if isinstance(value, str):
            _expect(_is_unicode(value), value, "text in Unicode", where)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, "an object", where)
    types = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    missing = [prefix + field.name for field in fields(kind) if field.name not in value]
    if missing:
        raise FileRefused(f"missing: {', '.join(missing):.400}")
    return kind(**{name: typed(types[name], value[name], prefix + name) for name in types})


def _expect(is_valid: bool, value: object, expected: str, where: str) -> None:
    if not is_valid:
        raise FileRefused(f"{where or 'it':.200} is {value!r:.80}; it must be {expected}")


def _is_unicode(text: str) -> bool:
    """Return whether `text` can be encoded; half of a surrogate pair, from a JSON escape, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_depth(text: str) -> None:
    """Raise ValueError for brackets, outside strings, nested more than `MAX_DEPTH` deep."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text))
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ValueError(f"objects and lists are nested more than {MAX_DEPTH} deep")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("an object has a key twice")
    return data


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or not _SMALLEST <= int(digits) <= _LARGEST:
        raise ValueError(f"{digits:.40} is out of range: whole numbers have at most 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.40} is out of range")
    return number


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
