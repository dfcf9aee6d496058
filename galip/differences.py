"""Which fields of two configs differ, in words, for messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["describe_differences"]

MOST_FIELDS = 8
"""Fields that a message names; the others are counted."""
MOST_CHARACTERS = 80
"""Of a value."""


def describe_differences(first: Any, second: Any, but: str = "not") -> str:
    """Return `text.width 192, not 512; layers 4, not 12`: the fields that differ, each with both values.

    `first` and `second`: dataclasses or mappings, which may hold others. `but`: the word between the values.
    Returns "" if no field differs. A value that only one of them has is "nothing" in the other.
    """
    fields, others = _flat(first), _flat(second)
    names = [name for name in {**fields, **others} if fields.get(name) != others.get(name)]
    parts = [f"{name} {_shown(fields, name)}, {but} {_shown(others, name)}" for name in names[:MOST_FIELDS]]
    if len(names) > MOST_FIELDS:
        parts.append(f"and {len(names) - MOST_FIELDS} more")
    return "; ".join(parts)


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of `config` by their dotted names."""
    return dict(_fields(config, prefix))


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(config):
        config = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in config.items():
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        return "nothing"
    text = repr(fields[name])
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
