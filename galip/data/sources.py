"""Pictures with captions in the layouts people have, one interface for all: `open_source`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from galip_runtime.errors import FileRefused, UsageError
from PIL import Image

from galip.data.decode import BrokenPicture, EncodedPicture

__all__ = ["BrokenPicture", "Captioned", "Source", "open_source", "readable", "recognise", "splits_of"]


@dataclass(frozen=True)
class Captioned:
    """A picture and what is known about it."""

    key: str
    """Names the picture within its source."""
    picture: Image.Image
    """RGB, transparency laid on white, cropped as the layout says (CUB), not resized."""
    captions: tuple[str, ...]
    """At least one; the canonical one first where the layout has one."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Whatever else the layout says; training's `exclude` reads it."""


class Source(Protocol):
    """A split of a data set whose pictures can be asked for by number; can be pickled."""

    layout: str
    split: str
    left_out: Counter[str]
    """What lies beside and is not used, with how many of it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Captioned:
        """Picture `index`, decoded. Raises `BrokenPicture`, for one without a caption too."""
        ...

    def key(self, index: int) -> str:
        """Name of picture `index`."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of picture `index`, nothing decoded. Raises `BrokenPicture` where there is none."""
        ...

    def meta(self, index: int) -> dict[str, Any]:
        """Meta of picture `index`, nothing decoded."""
        ...

    def encoded(self, index: int) -> EncodedPicture:
        """Picture `index` as stored. Raises `BrokenPicture`."""
        ...


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise what the system has against reading the data set `path`, or a part of it, as `FileRefused`."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
        raise FileRefused(f"{path} cannot be read{where}: {error.strerror or error}.") from error


def recognise(path: Path, layout: str = "auto") -> str:
    """The layout's name, of the folder `path` or as asked for.

    Raises `UsageError` for an unknown layout, a path that is no folder and one that fits none.
    """
    from galip.data.layouts import LAYOUTS

    if layout != "auto" and layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are auto, {', '.join(LAYOUTS)}.")
    with readable(path):
        if not path.is_dir():
            state = "it is a file" if path.exists() else "nothing has that name"
            raise UsageError(f"{path} is not a folder, {state}; give the folder that holds the pictures.")
        next(
            path.iterdir(), None
        )  # what looks for marks takes a folder that cannot be listed for an empty one
        for name in LAYOUTS if layout == "auto" else [layout]:
            if LAYOUTS[name].fits(path):
                return name
    looked_for = [f"{name}: {each.looked_for}" for name, each in LAYOUTS.items()]
    what = "no layout known here" if layout == "auto" else f"not the layout {layout}"
    raise UsageError(f"{path} is of {what}; name the folder that holds one of these:", *looked_for)


def splits_of(path: Path, layout: str = "auto") -> list[str]:
    """The splits that the folder `path` has. Raises as `recognise`."""
    from galip.data.layouts import LAYOUTS

    name = recognise(path, layout)
    with readable(path):
        return LAYOUTS[name].splits(path)


def find_split(path: Path, split: str, layout: str) -> str:
    """The split's own name (COCO's "test" is "val"). Raises `UsageError` where the folder has none such."""
    from galip.data.layouts import LAYOUTS

    with readable(path):
        splits = LAYOUTS[layout].splits(path)
    split = LAYOUTS[layout].synonyms.get(split, split)
    if split not in splits:
        raise UsageError(f"{path} (layout {layout}) has no split {split!r}; it has: {', '.join(splits)}.")
    return split


def open_source(path: Path, split: str = "train", layout: str = "auto") -> Source:
    """The pictures of `split` in the folder `path`; layout: auto, cub, coco, dfgan, shards or folder.

    Raises `UsageError` as `recognise` does and for a split that isn't there, `FileRefused` for lists and
    records that are broken or name files outside the folder.
    """
    from galip.data.layouts import LAYOUTS

    name = recognise(path, layout)
    with readable(path):
        source = LAYOUTS[name].open_split(path, find_split(path, split, name))
    if len(source) == 0:
        raise UsageError(f"{path} (layout {name}) has no pictures in split {split!r}.")
    return source
