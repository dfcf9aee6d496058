"""What a layout's module defines as `LAYOUT`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from galip.data.captioned import Source

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """A way to lay out captioned pictures in a folder."""

    contents: str
    """What such a folder holds, for the message to people whose folder has no known layout."""
    matches: Callable[[Path], bool]
    """Whether a folder has this layout."""
    list_splits: Callable[[Path], list[str]]
    """The splits of a folder that matches."""
    open_split: Callable[[Path, str], Source]
    """Open one of those splits. Raises `FileRefused`, `UsageError`."""
    split_aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of its splits, and the splits they mean."""
