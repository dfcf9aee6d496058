"""A split of the training data in memory, with the captions' tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from galip_runtime.tokenizer import Tokenizer, trim
from numpy.typing import NDArray
from torch import Tensor

from galip.data.batches import BatchResult, encode_captions
from galip.data.broken_pictures import BrokenPictureCounter
from galip.data.captioned import CaptionedPicture, Source
from galip.data.crop import crop_from, to_square, uncropped
from galip.data.decode import MAX_BROKEN, BrokenPicture
from galip.data.sources import choose, open_source

__all__ = ["InMemoryPictures"]


class InMemoryPictures:
    """Pictures uint8 (N, 3, S, S), cropped in the middle, and the tokens of all their captions."""

    def __init__(
        self,
        folder: Path,
        split: str,
        size: int,
        tokenizer: Tokenizer,
        exclude: Sequence[str] = (),
        *,
        layout: str = "auto",
        crop: str = "exact",
        max_broken: float = MAX_BROKEN,
    ) -> None:
        """Load `split` in pictures of `size` pixels a side. `exclude`: conditions on the pictures' JSON;
        `crop`: how `views` crops, as `to_square`. Broken pictures are left out.

        Raises `QualityGateFailed` if their share is above `max_broken`, `UsageError` if no picture is left,
        and as `open_source` does.
        """
        self.source, self.size = open_source(folder, split, layout), size
        chosen = choose(self.source, exclude, folder)
        counter = BrokenPictureCounter(max_broken, len(chosen))
        pictures: list[NDArray[np.uint8]] = []
        tokens: list[NDArray[np.int32]] = []
        self.captions: list[list[str]] = []
        self._uncropped: list[NDArray[np.uint8]] = []  # each (3, H, W), if `crop` is random
        for sample, encoded in _whole(self.source, chosen, tokenizer, counter):
            pictures.append(to_square(sample.picture, size, "exact"))
            tokens.append(encoded.astype(np.int32))
            self.captions.append(list(sample.captions))
            if crop == "random":
                self._uncropped.append(uncropped(sample.picture, size))
        if not pictures:
            raise counter.all_broken(len(chosen))
        self.broken = counter.broken
        self.pictures = torch.from_numpy(np.stack(pictures))
        counts = [len(captions) for captions in self.captions]
        self._tokens = np.concatenate(tokens)
        self._first = torch.tensor([0, *np.cumsum(counts)[:-1].tolist()])
        self._counts = torch.tensor(counts)

    def __len__(self) -> int:
        return len(self.captions)

    def describe(self) -> str:
        """Return one line for a log: pictures, layout, captions, and how many are broken."""
        mean = sum(map(len, self.captions)) / len(self)
        broken = f"; {self.broken:,} broken ones are left out" if self.broken else ""
        return (
            f"{len(self):,} pictures (layout {self.source.layout}, {self.source.split}), {mean:.1f} captions "
            f"each{broken}"
        )

    def views(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return what a training step has of pictures, uint8 (N, 3, S, S): themselves, or random crops."""
        if not self._uncropped:
            return self.pictures[indices]
        places = torch.rand(len(indices), 2, generator=generator).tolist()
        crops = [
            crop_from(self._uncropped[index], self.size, x, y)
            for index, (x, y) in zip(indices.tolist(), places, strict=True)
        ]
        return torch.from_numpy(np.stack(crops))

    def tokens(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return tokens int64 (N, L) of a caption of each picture: sampled by `generator`, or the first."""
        chosen = self._first[indices]
        if generator is not None:
            uniform = torch.rand(len(indices), generator=generator)
            chosen = chosen + (uniform * self._counts[indices]).long()
        return torch.from_numpy(trim(self._tokens[chosen.numpy()].astype(np.int64)))


def _whole(
    source: Source, chosen: Sequence[int], tokenizer: Tokenizer, counter: BrokenPictureCounter
) -> Iterator[tuple[CaptionedPicture, NDArray[np.int64]]]:
    """Yield the `chosen` pictures that are not broken, with the tokens of all captions (captions, context).

    Raises `QualityGateFailed` if too many are broken.
    """
    for index in chosen:
        result = BatchResult(tried=1)
        try:
            sample = source[index]
            tokens = encode_captions(tokenizer, sample.captions, sample.key)
        except BrokenPicture as error:
            result.broken.append((index, str(error)))
            counter.add(result)
        else:
            counter.add(result)
            yield sample, tokens
