"""COCO 2014 from its own annotations.

    annotations/captions_train2014.json, captions_val2014.json
    train2014/*.jpg, val2014/*.jpg (also under images/)

The GAN literature tests on val2014, so `test` means `val` here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from galip_runtime.errors import FileRefused

from galip.data.decode import BrokenPicture
from galip.data.layouts.files import FileSource, check_key

__all__ = ["fits", "open_split", "splits"]

LOOKED_FOR = "annotations/captions_train2014.json or captions_val2014.json"


def _annotations(path: Path, split: str) -> Path:
    return path / "annotations" / f"captions_{split}2014.json"


def fits(path: Path) -> bool:
    """Whether there are captions of either split."""
    return bool(splits(path))


def splits(path: Path) -> list[str]:
    """Those with captions."""
    return [split for split in ("train", "val") if _annotations(path, split).is_file()]


class CocoSource(FileSource):
    """Keys are file names without ending."""

    layout = "coco"

    def __init__(
        self, split: str, pictures: Path, names: Sequence[str], captions: Sequence[tuple[str, ...]]
    ) -> None:
        super().__init__(split, [name.rsplit(".", 1)[0] for name in names])
        self._pictures, self._names, self._captions = pictures, names, captions

    def file(self, index: int) -> Path:
        """`train2014/NAME.jpg`."""
        return self._pictures / self._names[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """Five or so, from the annotations."""
        if not self._captions[index]:
            raise BrokenPicture(f"{self.file(index)}: no caption in the annotations")
        return self._captions[index]


def open_split(path: Path, split: str) -> CocoSource:
    """Raises `FileRefused` where the annotations are broken or the pictures' folder is missing."""
    folders = [path / f"{split}2014", path / "images" / f"{split}2014"]
    pictures = next((folder for folder in folders if folder.is_dir()), None)
    if pictures is None:
        raise FileRefused(f"{path} has captions of {split}2014 and no pictures: {folders[0]} is not there.")
    file = _annotations(path, split)
    try:
        document = json.loads(file.read_bytes())
        names = {int(image["id"]): str(image["file_name"]) for image in document["images"]}
        captions: dict[int, list[str]] = {number: [] for number in names}
        for annotation in document["annotations"]:
            if caption := str(annotation["caption"]).strip():
                captions[annotation["image_id"]].append(caption)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileRefused(
            f"{file} is not COCO's: it needs images (id, file_name) and annotations (image_id, caption) of "
            f"these images ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    order = sorted(names)
    return CocoSource(
        split,
        pictures,
        [check_key(names[number], str(file)) for number in order],
        [tuple(captions[number]) for number in order],
    )
