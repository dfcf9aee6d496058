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

from galip.data.decode import Box
from galip.data.layouts.file_source import FileSource, caption_lines, check_key, first_file, read_lines
from galip.data.layouts.layout import Layout
from galip.data.left_out import LeftOut

__all__ = ["LAYOUT", "bird_box", "read_boxes"]


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


def _pairs(file: Path, fields: int) -> dict[str, list[str]]:
    """Read lines `id value …` by id. Raises `FileRefused`, naming the line."""
    values_of: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(file), 1):
        first, *values = line.split(None, fields - 1)
        if len(values) != fields - 1:
            raise FileRefused(f"{file}: line {number} has not {fields} fields: {line[:80]!r}.")
        values_of[first] = values
    return values_of


def read_boxes(root: Path) -> dict[str, Bounds]:
    """Read (x, y, w, h) in pixels of each `CLASS/NAME` from CUB's `images.txt` and `bounding_boxes.txt`.

    Raises `FileRefused` if they are broken or don't fit together.
    """
    boxes: dict[str, Bounds] = {}
    bounds = _pairs(root / "bounding_boxes.txt", 5)
    for number, (name,) in _pairs(root / "images.txt", 2).items():
        try:
            x, y, w, h = (float(value) for value in bounds[number])
            if not all(math.isfinite(value) and abs(value) < 1e9 for value in (x, y, w, h)):
                raise ValueError(f"{bounds[number]} are no pixels")
        except (KeyError, ValueError) as error:
            raise FileRefused(f"{root}/bounding_boxes.txt: no box for picture {number}: {error}") from error
        boxes[check_key(name, f"{root}/images.txt").rsplit(".", 1)[0]] = (x, y, w, h)
    return boxes


class CubSource(FileSource):
    """A split of CUB. Keys CLASS/NAME; meta: class."""

    layout = "cub"

    def __init__(self, split: str, names: Sequence[str], root: Path, text: Path) -> None:
        super().__init__(split, [name.rsplit(".", 1)[0] for name in names])
        self._names, self._root, self._text = names, root, text
        self._boxes = read_boxes(root)

    def file(self, index: int) -> Path:
        """Return `images/CLASS/NAME.jpg`."""
        return first_file(self._root / "images" / self._names[index])

    def captions(self, index: int) -> tuple[str, ...]:
        """Read `text/CLASS/NAME.txt`."""
        return caption_lines(first_file(self._text / f"{self.keys[index]}.txt"))

    def meta(self, index: int) -> dict[str, Any]:
        """Return the bird's kind."""
        return {"class": self.keys[index].split("/")[0]}

    def box(self, index: int, width: int, height: int) -> Box | None:
        """Return the box around the bird."""
        return bird_box(self._boxes[self.keys[index]], width, height)


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
    sides = _pairs(root / "train_test_split.txt", 2)
    names, left_out = [], LeftOut()
    for number, (name,) in _pairs(root / "images.txt", 2).items():
        side = sides.get(number)
        if side == [side_of_split]:
            names.append(check_key(name, f"{root}/images.txt"))
        elif side not in (["0"], ["1"]):
            left_out.add("pictures that train_test_split.txt has in neither split", name)
    source = CubSource(split, names, root, text)
    source.left_out = left_out
    return source


LAYOUT = Layout(
    contents="CUB_200_2011/images.txt and CUB_200_2011/bounding_boxes.txt",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
)
