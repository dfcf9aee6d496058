"""Data sets in the layouts people have, opened as one kind of source: `open_source`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError

from galip.data.captioned import Source
from galip.data.conditions import excluded
from galip.data.layouts import LAYOUTS, find_layout

__all__ = ["choose", "find_split", "list_splits", "open_source", "readable", "recognise"]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `FileRefused` if the system can't read the data set `path`, or a part of it, within the block."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
        raise FileRefused(f"{path} cannot be read{where}: {error.strerror or error}.") from error


def recognise(path: Path, layout: str = "auto") -> str:
    """Return the name of the layout of the folder `path`, or `layout` if the folder has it.

    Raises `UsageError` for an unknown layout, a path that is not a folder, and a folder without the layout.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; there are auto, {', '.join(LAYOUTS)}.")
    with readable(path):
        if not path.is_dir():
            state = "it is a file" if path.exists() else "nothing has that name"
            raise UsageError(f"{path} is not a folder, {state}; give the folder that holds the pictures.")
        next(path.iterdir(), None)  # `matches` would take a folder that cannot be listed for an empty one
        for name in LAYOUTS if layout == "auto" else [layout]:
            if find_layout(name).matches(path):
                return name
    contents = [f"{name}: {find_layout(name).contents}" for name in LAYOUTS]
    what = "no layout known here" if layout == "auto" else f"not the layout {layout}"
    with readable(path):
        links = sorted(entry.name for entry in path.iterdir() if entry.is_symlink() and entry.is_dir())
    hint = f" (linked folders such as {links[0]} are not followed)" if links else ""
    raise UsageError(f"{path} is of {what}{hint}; name the folder that holds one of these:", *contents)


def list_splits(path: Path, layout: str = "auto") -> list[str]:
    """Return the splits that the folder `path` has. Raises as `recognise`."""
    name = recognise(path, layout)
    with readable(path):
        return find_layout(name).list_splits(path)


def find_split(path: Path, split: str, layout: str) -> str:
    """Return the split's own name (COCO's "test" is "val"). Raises `UsageError` if the folder lacks it."""
    with readable(path):
        splits = find_layout(layout).list_splits(path)
    split = find_layout(layout).split_aliases.get(split, split)
    if split not in splits:
        raise UsageError(f"{path} (layout {layout}) has no split {split!r}; it has: {', '.join(splits)}.")
    return split


def open_source(path: Path, split: str = "train", layout: str = "auto") -> Source:
    """Open the pictures of `split` in the folder `path`; `layout`: auto or one of `LAYOUTS`.

    Raises `UsageError` as `recognise` does and for a split that doesn't exist, `FileRefused` for lists and
    records that are broken or name files outside the folder.
    """
    name = recognise(path, layout)
    with readable(path):
        source = find_layout(name).open_split(path, find_split(path, split, name))
    if len(source) == 0:
        raise UsageError(f"{path} (layout {name}) has no pictures in split {split!r}.")
    return source


def choose(source: Source, exclude: Sequence[str], path: object) -> list[int]:
    """Return the numbers of the pictures of `source`, opened from `path`, that `exclude` leaves.

    Raises `UsageError` if there is none, or for a condition that can't be understood.
    """
    if not exclude:
        return [*range(len(source))]
    indices = [index for index in range(len(source)) if not excluded(source.meta(index), exclude)]
    if not indices:
        left_out = f"after leaving out {list(exclude)}; exclude less"
        raise UsageError(f"{path} has no pictures in split {source.split!r} {left_out}")
    return indices
