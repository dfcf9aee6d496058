"""Conditions on a picture's meta, by which a training run leaves pictures out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from galip_runtime.errors import UsageError

__all__ = ["check_conditions", "excluded"]


def check_conditions(conditions: Sequence[str]) -> None:
    """Raise `UsageError` for a condition KEY>… that compares with no number."""
    for condition in conditions:
        _threshold(condition)


def excluded(meta: Mapping[str, object], conditions: Sequence[str]) -> bool:
    """Return whether a condition holds: KEY=VALUE, KEY>NUMBER or KEY. Raises as `check_conditions`."""
    return any(_holds(meta, condition) for condition in conditions)


def _holds(meta: Mapping[str, object], condition: str) -> bool:
    if threshold := _threshold(condition):
        key, number = threshold
        value = meta.get(key)
        return not isinstance(value, int | float) or value > number
    key, equals, text = condition.partition("=")
    return key in meta and str(meta[key]) == text if equals else bool(meta.get(key))


def _threshold(condition: str) -> tuple[str, float] | None:
    """Return the key and the number of KEY>NUMBER; None for another kind of condition."""
    match = re.fullmatch("([^=>]+)>(.*)", condition, re.DOTALL)
    if match is None:
        return None
    try:
        return match[1], float(match[2])
    except ValueError:
        raise UsageError(
            f"{condition!r} compares with {match[2]!r}, which is no number; write KEY>NUMBER"
        ) from None
