"""CaptionedPicture pictures: one of them, and the interface of a split of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from galip.data.decode import EncodedPicture
from galip.data.left_out import LeftOut

__all__ = ["CaptionedPicture", "Source"]


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture and what is known about it."""

    key: str
    """Name of the picture within its source."""
    picture: Image.Image
    """RGB, transparency laid on white, cropped as the layout says (CUB), not resized."""
    captions: tuple[str, ...]
    """At least one; the canonical one first where the layout has one."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Whatever else the layout says; training's `exclude` reads it."""


class Source(Protocol):
    """A split of a data set: captioned pictures by number. Can be pickled."""

    layout: str
    split: str
    left_out: LeftOut
    """Kinds of things beside the pictures that are not used: how many of each, and examples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedPicture:
        """Decode picture `index`. Raises `BrokenPicture`, also if it has no caption."""
        ...

    def key(self, index: int) -> str:
        """Return the name of picture `index`."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Return its captions without decoding picture `index`. Raises `BrokenPicture` if it has none."""
        ...

    def meta(self, index: int) -> dict[str, Any]:
        """Return the meta of picture `index` without decoding it."""
        ...

    def encoded(self, index: int) -> EncodedPicture:
        """Return picture `index` as stored. Raises `BrokenPicture`."""
        ...
