"""Conditions on a picture's meta, by which a training run leaves pictures out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from galip_runtime.errors import UsageError

__all__ = ["excluded"]


def excluded(meta: Mapping[str, object], conditions: Sequence[str]) -> bool:
    """Return whether a condition holds: KEY=VALUE, KEY>NUMBER or KEY. Raises `UsageError` for no number."""
    return any(_holds(meta, condition) for condition in conditions)


def _holds(meta: Mapping[str, object], condition: str) -> bool:
    if match := re.fullmatch("([^=>]+)>(.*)", condition, re.DOTALL):
        value = meta.get(match[1])
        return not isinstance(value, int | float) or value > _number(match[2], condition)
    key, equals, value = condition.partition("=")
    return key in meta and str(meta[key]) == value if equals else bool(meta.get(key))


def _number(text: str, condition: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{condition!r} compares with {text!r}, which is no number; write KEY>NUMBER"
        ) from None
