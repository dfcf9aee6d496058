"""A split of the training data in memory, with the captions' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from galip_runtime.errors import UsageError
from galip_runtime.tokenizer import Tokenizer, trim
from torch import Tensor

from galip.data.conditions import excluded
from galip.data.shards import load_pictures

__all__ = ["InMemoryPictures"]


class InMemoryPictures:
    """Pictures uint8 (N, 3, S, S) and the tokens of all their captions."""

    def __init__(
        self, folder: Path, split: str, size: int, tokenizer: Tokenizer, exclude: Sequence[str] = ()
    ) -> None:
        """Load `split`. `exclude`: conditions on the pictures' JSON, as the config's.

        Raises `UsageError` if the pictures' size isn't `size` or no picture is left.
        """
        loaded = load_pictures(folder, split, where=lambda meta: not excluded(meta, exclude))
        if len(loaded) == 0:
            raise UsageError(f"{folder} has no pictures in split {split!r} after leaving out {list(exclude)}")
        if loaded.pictures.shape[-1] != size:
            raise UsageError(
                f"{folder} has pictures of {loaded.pictures.shape[-1]} pixels, the model takes {size}; "
                f"build the data again with --size {size}"
            )
        self.pictures = torch.from_numpy(loaded.pictures)
        self.captions = loaded.captions
        counts = [len(captions) for captions in loaded.captions]
        flat = tokenizer.encode([caption for captions in loaded.captions for caption in captions])
        self._tokens = flat.astype(np.int32)
        self._first = torch.tensor([0, *np.cumsum(counts)[:-1].tolist()])
        self._counts = torch.tensor(counts)

    def __len__(self) -> int:
        return len(self.captions)

    def tokens(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return tokens int64 (N, L) of a caption of each picture: sampled by `generator`, or the first."""
        chosen = self._first[indices]
        if generator is not None:
            uniform = torch.rand(len(indices), generator=generator)
            chosen = chosen + (uniform * self._counts[indices]).long()
        return torch.from_numpy(trim(self._tokens[chosen.numpy()].astype(np.int64)))
