"""Pictures to be evaluated: a model's, a data set's or a folder's, and batches of a share of them.

Shapes: N pictures, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from galip.data.captioned import Source
from galip.data.conditions import excluded
from galip.data.crop import to_square
from galip.data.decode import MAX_BROKEN, BrokenPicture, EncodedPicture
from galip.data.layouts import LAYOUTS, find_layout
from galip.data.layouts.folder import (
    ENDINGS,
    NoCaptions,
    has_captions,
    left_out_below,
    pictures_below,
    split_folders,
)
from galip.data.left_out import LeftOut
from galip.data.sampler import generator_for
from galip.data.sources import find_split, open_source, readable
from galip.data.texts import read_captions

__all__ = [
    "GeneratedPictures",
    "Pictures",
    "StoredPictures",
    "batches",
    "captions_of",
    "check_broken",
    "check_distinct_captions",
    "check_finite",
    "is_plain_folder",
    "open_pictures",
    "too_few_captions",
]

MAX_EXAMPLES = 5
MAX_STORED_PIXELS = 2**22
"""Of a picture that is evaluated in its stored size: a batch of them is in memory."""


class Pictures(Protocol):
    """Pictures by number, with their captions if they have some."""

    captions: Sequence[str]
    dropped: set[int]
    """Numbers of those that `batch` was asked for and left out."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return pictures (N, 3, H, W), uint8, or float in [-1, 1], without those it has to leave out."""
        ...


@dataclass
class StoredPictures:
    """Pictures of a data set or a plain folder, resized to squares of `size` pixels if that is given.

    In a fixed random order, so that the first ones are a fair sample.
    """

    names: Sequence[str]
    read: Callable[[int], Image.Image]
    size: int | None
    captions: Sequence[str]
    origin: str
    """Identifies them for the cache: changes when a file does."""
    skip_broken: bool = False
    without_caption: int = 0
    """Pictures beside these that were left out when this was opened."""
    examples: list[str] = field(default_factory=list)
    """What is wrong with the first few that are left out."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """What else lies there and is not used."""
    dropped: set[int] = field(default_factory=set)

    @property
    def broken(self) -> int:
        """Broken pictures that `batch` left out so far."""
        return len(self.dropped)

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return pictures uint8 (N, 3, H, W).

        Raises `UsageError` for a picture that is too large without `size`, `FileRefused` for sizes that
        differ, and for a broken picture unless `skip_broken`, which counts it and leaves it out.
        """
        pictures: list[NDArray[np.uint8]] = []
        for index in indices:
            try:
                picture = self.read(index)
            except BrokenPicture as error:
                if not self.skip_broken:
                    raise
                self.dropped.add(index)
                _add_example(self.examples, error)
                continue
            if not self.size and picture.width * picture.height > MAX_STORED_PIXELS:
                raise UsageError(
                    f"{self.names[index]} is {picture.width} x {picture.height} pixels; pictures of over "
                    f"{MAX_STORED_PIXELS:,} are evaluated only when resized: give --size"
                )
            if self.size:
                pictures.append(to_square(picture, self.size, "exact"))
            else:
                pictures.append(np.asarray(picture).transpose(2, 0, 1))
            if pictures[-1].shape != pictures[0].shape:
                raise FileRefused(
                    f"{self.names[index]} is {picture.width} x {picture.height} pixels, others are not; "
                    "resize all to one size, or give --size"
                )
        if not pictures:
            return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        return torch.from_numpy(np.ascontiguousarray(np.stack(pictures)))


class GeneratedPictures:
    """Pictures that a model generates: number i from caption i and seed `seed + i`."""

    def __init__(self, model: TextToImage, captions: Sequence[str], seed: int = 0) -> None:
        self.model, self.captions, self.seed = model, captions, seed
        self.dropped: set[int] = set()

    @property
    def not_finite(self) -> int:
        """Pictures with NaN or infinity so far."""
        return len(self.dropped)

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return float32 (N, 3, H, W), not clamped. Those with NaN or infinity are counted and left out."""
        sentence = self.model.encode_text([self.captions[index] for index in indices])
        noise = self.model.noise([self.seed + index for index in indices])
        try:
            return torch.from_numpy(np.array(self.model.decode(noise, sentence)))
        except QualityGateFailed:
            rows = [slice(row, row + 1) for row in range(len(indices))]
            parts = [
                self._decode_one(index, noise[row], sentence[row])
                for index, row in zip(indices, rows, strict=True)
            ]
            return torch.cat(parts)

    def _decode_one(self, index: int, noise: np.ndarray, sentence: np.ndarray) -> Tensor:
        try:
            return torch.from_numpy(np.array(self.model.decode(noise, sentence)))
        except QualityGateFailed:
            self.dropped.add(index)
            height, width = self.model.dimensions.image_height, self.model.dimensions.image_width
            return torch.empty(0, 3, height, width)


def open_pictures(
    path: Path,
    *,
    split: str = "train",
    layout: str = "auto",
    size: int | None = None,
    exclude: Sequence[str] = (),
    captioned: bool = False,
    skip_broken: bool = False,
    plain: bool = False,
) -> StoredPictures:
    """Open the pictures of a data set in any layout, or of a plain folder. Captions are kept only if
    `captioned`. `skip_broken`: leave out those that can't be decoded or have no caption.

    A folder of which some pictures have captions is a data set, as for training: those without are broken.
    `plain`: such a folder is just pictures, unless `captioned`.

    Raises `UsageError` for a path without pictures, and as `open_source`.
    """
    with readable(path):
        return _open_pictures(path, split, layout, size, exclude, captioned, skip_broken, plain)


def _open_pictures(
    path: Path,
    split: str,
    layout: str,
    size: int | None,
    exclude: Sequence[str],
    captioned: bool,
    skip_broken: bool,
    plain: bool,
) -> StoredPictures:
    is_plain = not captioned and not exclude and layout in ("auto", "folder") and is_plain_folder(path)
    source: Source
    if is_plain and (plain or not has_captions(path)):
        return _open_plain(path, split, size, skip_broken)
    try:
        source = open_source(path, split, layout)
    except NoCaptions:
        if is_plain:
            return _open_plain(path, split, size, skip_broken)
        raise
    indices = [index for index in _shuffled(len(source)) if not excluded(source.meta(index), exclude)]
    captions: list[str] = []
    examples: list[str] = []
    count = len(indices)
    if captioned or skip_broken:
        caption_of = _sample_captions(source, indices, skip_broken, examples)
        indices, captions = list(caption_of), list(caption_of.values()) if captioned else []
    if not indices:
        raise UsageError(f"{path} has no pictures in split {split!r} after leaving out {list(exclude)}")
    names = [source.key(index) for index in indices]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    origin = repr((source.layout, source.split, list(exclude), _origin(path, files)))
    return StoredPictures(
        names,
        lambda index: source[indices[index]].picture,
        size,
        captions,
        origin,
        skip_broken,
        count - len(indices),
        examples,
        source.left_out,
    )


def _open_plain(path: Path, split: str, size: int | None, skip_broken: bool) -> StoredPictures:
    """Open a folder's pictures without captions: those of the split, if it has splits."""
    splits = split_folders(path)
    folder = path / find_split(path, split, "folder") if splits else path
    below = list(pictures_below(folder))
    if not below:
        raise UsageError(f"{path} has no pictures ({', '.join(ENDINGS)})")
    files = [below[index] for index in _shuffled(len(below))]
    return StoredPictures(
        [str(file) for file in files],
        lambda index: EncodedPicture(str(files[index]), files[index]).decode(),
        size,
        [],
        _origin(path, files),
        skip_broken,
        left_out=left_out_below(folder, [], set(files)),
    )


def check_broken(path: Path, broken: int, count: int, examples: Sequence[str]) -> None:
    """Raise `QualityGateFailed` if more of `count` pictures are `broken` than training allows by default."""
    if broken > MAX_BROKEN * count:
        first = f" The first: {'; '.join(examples)}." if examples else ""
        raise QualityGateFailed(
            f"{broken} of {count} pictures of {path} are broken, {broken / count:.1%}; at most "
            f"{MAX_BROKEN:.0%} may be.{first} `galip data check` lists them: repair or remove them"
        )


def _add_example(examples: list[str], error: Exception) -> None:
    if len(examples) < MAX_EXAMPLES:
        examples.append(str(error))


def captions_of(known: Sequence[str], source: Path | None, count: int, seed: int) -> list[str]:
    """Return `count` captions: those `known` or the lines of the text file `source`, shuffled, repeatedly."""
    known = known if source is None else read_captions(source)
    if not known:
        raise UsageError(
            "there are no captions to sample from; give a captioned data set or --captions FILE.txt"
        )
    order = torch.randperm(len(known), generator=generator_for(seed, "evaluate", 0)).tolist()
    return [known[order[index % len(known)]] for index in range(count)]


def check_finite(broken: int, count: int) -> None:
    """Raise `QualityGateFailed` if any of `count` pictures is `broken`: has NaN or infinity."""
    if broken:
        raise QualityGateFailed(
            f"{broken} of {count} pictures have NaN or infinity, so no figure is computed. Load the bundle "
            "in fp32, and check the model's training if that has them, too"
        )


def check_distinct_captions(captions: Sequence[str], least: int, metric: str) -> None:
    """Raise `UsageError` if fewer than `least` of the captions differ."""
    if len(set(captions)) < least:
        raise too_few_captions(captions, least, metric)


def too_few_captions(captions: Sequence[str], least: int, metric: str) -> UsageError:
    """Return the error for pictures with these captions."""
    return UsageError(
        f"{metric} needs {least} pictures of different captions; there are {len(set(captions))} captions "
        f"on {len(captions)} pictures. Give more pictures (--count)"
    )


def batches(pictures: Pictures, share: range, size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the numbers in `share` and their pictures, `size` at a time, less those that are left out."""
    for first in range(0, len(share), size):
        indices = list(share[first : first + size])
        batch = pictures.batch(indices)
        yield [index for index in indices if index not in pictures.dropped], batch


def _sample_captions(
    source: Source, indices: Sequence[int], skip_broken: bool, examples: list[str]
) -> dict[int, str]:
    """Sample one caption for each picture that has some, by its number alone."""
    chosen = {}
    for index in indices:
        try:
            captions = source.captions(index)
        except BrokenPicture as error:
            if not skip_broken:
                raise
            _add_example(examples, error)
            continue
        uniform = torch.rand((), generator=generator_for(0, "evaluation caption", index))
        chosen[index] = captions[int(uniform * len(captions))]
    return chosen


def _shuffled(count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator_for(0, "evaluation order", 0)).tolist()
    return order


def is_plain_folder(path: Path) -> bool:
    """Return whether `path` is a folder without any layout but the plain folder's."""
    return path.is_dir() and not any(find_layout(name).matches(path) for name in LAYOUTS if name != "folder")


def _origin(path: Path, files: Sequence[Path]) -> str:
    """Return the files' names, sizes and times, in order."""
    # lstat of what cannot be reached: a link to nowhere is a broken picture, which is met when it is read
    statuses = [
        (str(file.relative_to(path)), file.stat() if file.exists() else file.lstat()) for file in files
    ]
    return repr([(name, status.st_size, status.st_mtime_ns) for name, status in statuses])
