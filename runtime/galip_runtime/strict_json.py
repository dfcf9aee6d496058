"""JSON into frozen dataclasses, nothing guessed: a missing or ill-typed field is refused by its name."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from galip_runtime.errors import FileRefused

__all__ = ["parse", "typed"]

_NAMES = {int: "a whole number", str: "text"}


def parse(text: str | bytes) -> Any:
    """The value that the JSON `text` writes. Raises FileRefused, also for NaN and for a key given twice."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"it is not valid JSON ({error})") from error


def typed(kind: Any, value: Any, where: str = "") -> Any:
    """`value`, as `parse` gave it, as the type `kind`.

    `kind`: a dataclass, int, str, a union of these two, Any, Mapping[str, kind] or tuple[kind, ...].
    An object's further fields are ignored. Raises FileRefused with the path of the field, `where` first.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        _expect(isinstance(value, dict), value, "an object", where)
        return {key: typed(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple:
        _expect(isinstance(value, list), value, "a list", where)
        return tuple(typed(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind is not Any:
        allowed = arguments or (kind,)
        # not isinstance: JSON's true is no whole number
        _expect(type(value) in allowed, value, " or ".join(_NAMES[each] for each in allowed), where)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, "an object", where)
    types = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    missing = [prefix + entry.name for entry in fields(kind) if entry.name not in value]
    if missing:
        raise FileRefused(f"missing: {', '.join(missing)}")
    return kind(**{name: typed(types[name], value[name], prefix + name) for name in types})


def _expect(right: bool, value: object, what: str, where: str) -> None:
    if not right:
        raise FileRefused(f"{where or 'it'} is {value!r:.80}; {what} would be right")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is there twice")
    return data


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
