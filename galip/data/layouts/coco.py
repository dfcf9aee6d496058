"""COCO 2014, by its own annotations.

    annotations/captions_train2014.json, captions_val2014.json
    train2014/*.jpg, val2014/*.jpg (also under images/)

The GAN literature tests on val2014, so `test` means `val` here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from galip_runtime.errors import FileRefused

from galip.data.decode import BrokenPicture
from galip.data.layouts.file_source import FileSource, check_key, composed_name, first_file
from galip.data.layouts.layout import Layout
from galip.data.left_out import LeftOut
from galip.data.texts import UNUSABLE, check_captions, read_json

__all__ = ["LAYOUT"]


def _annotations(path: Path, split: str) -> Path:
    return path / "annotations" / f"captions_{split}2014.json"


def matches(path: Path) -> bool:
    """Return whether there are captions of either split."""
    return bool(list_splits(path))


def list_splits(path: Path) -> list[str]:
    """Return the splits with captions."""
    return [split for split in ("train", "val") if _annotations(path, split).is_file()]


class CocoSource(FileSource):
    """A split of COCO. Keys are file names without ending."""

    layout = "coco"

    def __init__(
        self, split: str, pictures: Path, names: Sequence[str], captions: Sequence[tuple[str, ...]]
    ) -> None:
        super().__init__(split, [name.rsplit(".", 1)[0] for name in names])
        self._pictures, self._names, self._captions = pictures, names, captions

    def file(self, index: int) -> Path:
        """Return `train2014/NAME.jpg`."""
        return first_file(self._pictures, self._names[index])

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the annotations' captions, five or so."""
        try:
            return check_captions(self._captions[index])
        except ValueError as error:
            raise BrokenPicture(f"{self.file(index)}: in the annotations {error}") from error


def open_split(path: Path, split: str) -> CocoSource:
    """Open a split. Raises `FileRefused` if the annotations are broken or the pictures' folder is missing."""
    folders = [path / f"{split}2014", path / "images" / f"{split}2014"]
    pictures = next((folder for folder in folders if folder.is_dir()), None)
    if pictures is None:
        raise FileRefused(f"{path} has captions of {split}2014 and no pictures: {folders[0]} is not there.")
    file = _annotations(path, split)
    left_out = LeftOut()
    try:
        document = read_json(file)
        names: dict[str, str] = {}
        for image in document["images"]:
            identity = _identity(image["id"])
            name = check_key(_text(image["file_name"]), str(file))
            if identity in names:
                left_out.add("pictures listed a second time", f"id {identity}, {name}")
            names.setdefault(identity, name)
        captions: dict[str, list[str]] = {identity: [] for identity in names}
        for annotation in document["annotations"]:
            identity, caption = _identity(annotation["image_id"]), annotation["caption"]
            if identity not in captions:
                left_out.add("captions of pictures that are not listed", f"image_id {identity}")
            elif isinstance(caption, str) and caption.strip():
                captions[identity].append(caption)
            else:
                left_out.add(UNUSABLE, f"{names[identity]}: {caption!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise FileRefused(
            f"{file} is not COCO's: it needs images (id, file_name) and annotations (image_id, caption) "
            f"({type(error).__name__}: {error}). Fetch it again."
        ) from error
    order = sorted(names, key=lambda identity: (len(identity), identity))  # of numbers: as they count
    source = CocoSource(
        split,
        pictures,
        [names[identity] for identity in order],
        [tuple(captions[identity]) for identity in order],
    )
    listed = {composed_name(name.partition("/")[0]) for name in names.values()}
    for name in sorted(os.listdir(pictures)):
        if composed_name(name) not in listed:
            left_out.add("files that the annotations do not list", name)
    source.left_out = left_out
    return source


def _identity(value: object) -> str:
    """Return a picture's id as text, as some files write it. Raises TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"an id is a whole number, not {value!r:.80}")
    return str(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a file name is text, not {value!r:.80}")
    return value


LAYOUT = Layout(
    contents="annotations/captions_train2014.json or captions_val2014.json",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
    split_aliases={"test": "val"},
)
