"""CUB-200-2011 as published, with its ten captions per picture.

    CUB_200_2011/images.txt, train_test_split.txt, bounding_boxes.txt, images/CLASS/NAME.jpg
    text/CLASS/NAME.txt (or text_c10/…), in CUB_200_2011 or beside it

The splits are those of `train_test_split.txt`: every class is in both. The GAN literature splits by class
(150 to train on, 50 to test on), and those lists are not CUB's: they come as DF-GAN's `filenames.pickle`
(layout dfgan). Pictures are cropped around the bird as in the released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused

from galip.data.decode import Box, BrokenPicture
from galip.data.layouts.file_source import (
    FileSource,
    caption_lines,
    check_key,
    first_file,
    read_lines,
    text_file,
)
from galip.data.layouts.layout import Layout
from galip.data.left_out import LeftOut

__all__ = ["LAYOUT", "bird_box", "no_box", "read_boxes"]


Bounds = tuple[float, float, float, float]


def bird_box(bounds: Bounds, width: int, height: int) -> Box:
    """Crop as the released code: a square, 1.5 times the longer side of (x, y, w, h), cut at borders."""
    x, y, w, h = bounds
    radius = int(max(w, h) * 0.75)
    centre_x, centre_y = int((2 * x + w) / 2), int((2 * y + h) / 2)
    return (
        max(0, centre_x - radius),
        max(0, centre_y - radius),
        min(width, centre_x + radius),
        min(height, centre_y + radius),
    )


def _root(path: Path) -> Path:
    return path if (path / "images.txt").is_file() else path / "CUB_200_2011"


def matches(path: Path) -> bool:
    """Return whether CUB's lists are there."""
    return (_root(path) / "images.txt").is_file() and (_root(path) / "bounding_boxes.txt").is_file()


def list_splits(path: Path) -> list[str]:
    """Return both splits; there are always both."""
    return ["train", "test"]


def _pairs(file: Path, fields: int, left_out: LeftOut | None = None) -> dict[str, list[str]]:
    """Read lines `id value …` by id; further lines of one id are `left_out`. Raises `FileRefused`, naming
    the line.
    """
    left_out = LeftOut() if left_out is None else left_out
    values_of: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(file), 1):
        first, *values = line.split(None, fields - 1)
        if len(values) != fields - 1:
            raise FileRefused(f"{file}: line {number} has not {fields} fields: {line[:80]!r}.")
        if first in values_of:
            left_out.add(f"lines of {file.name} whose id came before", line)
        values_of.setdefault(first, values)
    return values_of


def read_boxes(root: Path) -> dict[str, Bounds]:
    """Read (x, y, w, h) in pixels of each `CLASS/NAME` from CUB's `images.txt` and `bounding_boxes.txt`.

    Pictures without a box, or with one that is no four numbers, are not there. Raises `FileRefused` if the
    lists are broken.
    """
    boxes: dict[str, Bounds] = {}
    for name, bounds in _boxes_by_file(root, LeftOut()).items():
        boxes.setdefault(name.rsplit(".", 1)[0], bounds)
    return boxes


def _boxes_by_file(root: Path, left_out: LeftOut) -> dict[str, Bounds]:
    """Read the boxes as `read_boxes`, by `CLASS/NAME.jpg`."""
    boxes: dict[str, Bounds] = {}
    bounds_of = _pairs(root / "bounding_boxes.txt", 5, left_out)
    for number, (name,) in _pairs(root / "images.txt", 2).items():
        if (bounds := _bounds(bounds_of.get(number, []))) is not None:
            boxes.setdefault(check_key(name, f"{root}/images.txt"), bounds)
    return boxes


def _bounds(values: Sequence[str]) -> Bounds | None:
    """Return four numbers of pixels; None if `values` are something else."""
    try:
        x, y, w, h = (float(value) for value in values)
    except ValueError:
        return None
    is_usable = all(math.isfinite(value) and abs(value) < 1e9 for value in (x, y, w, h))
    return (x, y, w, h) if is_usable else None


def no_box(root: Path, name: str) -> BrokenPicture:
    """Return the error for a picture that CUB's boxes leave out."""
    return BrokenPicture(
        f"{root}/bounding_boxes.txt has no box for {name}: a line is its number in images.txt and x, y, "
        "width, height."
    )


class CubSource(FileSource):
    """A split of CUB. Keys CLASS/NAME; meta: class."""

    layout = "cub"

    def __init__(
        self, split: str, names: Sequence[str], root: Path, text: Path, left_out: LeftOut | None = None
    ) -> None:
        super().__init__(split, [name.rsplit(".", 1)[0] for name in names])
        self._names, self._root, self._text = names, root, text
        self.left_out = LeftOut() if left_out is None else left_out
        self._boxes = _boxes_by_file(root, self.left_out)

    def file(self, index: int) -> Path:
        """Return `images/CLASS/NAME.jpg`."""
        return first_file(self._root / "images", self._names[index])

    def captions(self, index: int) -> tuple[str, ...]:
        """Read `text/CLASS/NAME.txt`."""
        return caption_lines(text_file(self._text, self.keys[index]))

    def meta(self, index: int) -> dict[str, Any]:
        """Return the bird's kind."""
        return {"class": self.keys[index].split("/")[0]}

    def box(self, index: int, width: int, height: int) -> Box | None:
        """Return the box around the bird. Raises `BrokenPicture` for one without."""
        bounds = self._boxes.get(self._names[index])
        if bounds is None:
            raise no_box(self._root, self._names[index])
        return bird_box(bounds, width, height)


def open_split(path: Path, split: str) -> CubSource:
    """Open a split. Raises `FileRefused` if the lists are broken or there are no captions."""
    root = _root(path)
    places = [parent / name for parent in (path, root, root.parent) for name in ("text", "text_c10")]
    text = next((place for place in places if place.is_dir()), None)
    if text is None:
        raise FileRefused(
            f"{path} has CUB's pictures and no captions: put Reed's text/CLASS/NAME.txt (or text_c10/…) "
            "beside CUB_200_2011."
        )
    side_of_split = "1" if split == "train" else "0"
    names, left_out = [], LeftOut()
    sides = _pairs(root / "train_test_split.txt", 2, left_out)
    for number, (name,) in _pairs(root / "images.txt", 2, left_out).items():
        side = sides.get(number)
        if side == [side_of_split]:
            names.append(check_key(name, f"{root}/images.txt"))
        elif side not in (["0"], ["1"]):
            left_out.add("pictures that train_test_split.txt has in neither split", name)
    return CubSource(split, names, root, text, left_out)


LAYOUT = Layout(
    contents="CUB_200_2011/images.txt and CUB_200_2011/bounding_boxes.txt",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
)
