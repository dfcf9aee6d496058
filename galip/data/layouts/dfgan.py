"""The preprocessed layout of DF-GAN and GALIP: lists of keys in pickles, captions in text files.

    {train,test}/filenames.pickle    a list of keys
    birds    CUB_200_2011/images/KEY.jpg, cropped by bounding_boxes.txt if there    text/KEY.txt
    COCO     images/{train2014,val2014}/jpg/KEY.jpg                                 text/KEY.txt
    CC3M     images/{train,test}/KEY.jpg                       text/{train,test}/(KEY before "_").txt
    CC12M    images/KEY.jpg                                    text/(KEY before "_").txt

The pictures' folders tell which of the four it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused

from galip.data.decode import PICTURE_ENDINGS, Box
from galip.data.layouts.cub import bird_box, no_box, read_boxes
from galip.data.layouts.file_source import FileSource, caption_lines, check_key, first_file, text_file
from galip.data.layouts.layout import Layout
from galip.data.layouts.pickled import read_keys
from galip.data.left_out import LeftOut

__all__ = ["LAYOUT"]

ENDINGS = ("jpg", "JPG", *(ending for ending in PICTURE_ENDINGS if ending != "jpg"))
"""Of a key's picture, in the order in which they are tried."""
COCO_FOLDERS = {"train": "train2014", "test": "val2014"}


def matches(path: Path) -> bool:
    """Return whether there is a list of keys."""
    return bool(list_splits(path))


def list_splits(path: Path) -> list[str]:
    """Return the splits with a list."""
    return [split for split in ("train", "test") if (path / split / "filenames.pickle").is_file()]


class DfganSource(FileSource):
    """A split of DF-GAN's data. Keys as in the lists; meta: class, if keys have folders (birds)."""

    layout = "dfgan"

    def __init__(self, split: str, keys: list[str], root: Path) -> None:
        super().__init__(split, keys)
        self._text = root / "text"
        self._birds = root / "CUB_200_2011"
        self._boxes = read_boxes(self._birds) if (self._birds / "bounding_boxes.txt").is_file() else None
        coco = root / "images" / COCO_FOLDERS[split]
        folders = [self._birds / "images", coco / "jpg", coco, root / "images" / split, root / "images"]
        pictures = next((folder for folder in folders if folder.is_dir()), None)
        if pictures is None:
            places = ", ".join(str(folder.relative_to(root)) for folder in folders)
            raise FileRefused(f"{root} has lists of keys and no pictures; looked for: {places}.")
        self._pictures = pictures
        if pictures == root / "images" / split and (self._text / split).is_dir():
            self._text = self._text / split

    def file(self, index: int) -> Path:
        """Return KEY.jpg, or of another ending, in the pictures' folder."""
        return first_file(self._pictures, *(f"{self.keys[index]}.{ending}" for ending in ENDINGS))

    def captions(self, index: int) -> tuple[str, ...]:
        """Read KEY.txt, or that of KEY's part before its first "_", in the captions' folder."""
        key = self.keys[index]
        return caption_lines(text_file(self._text, key, key.split("_")[0] or key))

    def meta(self, index: int) -> dict[str, Any]:
        """Return the bird's kind."""
        folder, slash, _ = self.keys[index].rpartition("/")
        return {"class": folder} if slash else {}

    def box(self, index: int, width: int, height: int) -> Box | None:
        """Return the box around the bird, if there are boxes. Raises `BrokenPicture` for one without."""
        if self._boxes is None:
            return None
        bounds = self._boxes.get(self.keys[index])
        if bounds is None:
            raise no_box(self._birds, self.keys[index])
        return bird_box(bounds, width, height)


def open_split(path: Path, split: str) -> DfganSource:
    """Open a split. Raises `FileRefused` if the list isn't one of strings, or pictures or boxes lack."""
    file = path / split / "filenames.pickle"
    keys: dict[str, None] = {}
    left_out = LeftOut()
    for key in read_keys(file):
        if check_key(key, str(file)) in keys:
            left_out.add("keys listed a second time", key)
        keys.setdefault(check_key(key, str(file)))
    source = DfganSource(split, list(keys), path)
    source.left_out = left_out
    return source


LAYOUT = Layout(
    contents="train/filenames.pickle or test/filenames.pickle (DF-GAN's and GALIP's preprocessed data)",
    matches=matches,
    list_splits=list_splits,
    open_split=open_split,
)
