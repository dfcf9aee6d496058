"""The layouts by name, in the order in which `auto` tries them: the ones with clear marks first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import galip.data.layouts.coco as coco
import galip.data.layouts.cub as cub
import galip.data.layouts.dfgan as dfgan
import galip.data.layouts.folder as folder
import galip.data.layouts.shards as shards
from galip.data.sources import Source

__all__ = ["LAYOUTS", "Layout"]


@dataclass(frozen=True)
class Layout:
    """What a layout's module offers."""

    looked_for: str
    """What marks a folder of this layout, for people."""
    fits: Callable[[Path], bool]
    """Whether a folder has the layout's marks."""
    splits: Callable[[Path], list[str]]
    """The splits that a folder has."""
    open_split: Callable[[Path, str], Source]
    """The pictures of a split that the folder has. Raises `FileRefused`, `UsageError`."""
    synonyms: Mapping[str, str] = field(default_factory=dict)
    """Other names of its splits."""


LAYOUTS = {
    "dfgan": Layout(dfgan.LOOKED_FOR, dfgan.fits, dfgan.splits, dfgan.open_split),
    "coco": Layout(coco.LOOKED_FOR, coco.fits, coco.splits, coco.open_split, {"test": "val"}),
    "cub": Layout(cub.LOOKED_FOR, cub.fits, cub.splits, cub.open_split),
    "shards": Layout(shards.LOOKED_FOR, shards.fits, shards.splits, shards.open_split),
    "folder": Layout(folder.LOOKED_FOR, folder.fits, folder.splits, folder.open_split),
}
