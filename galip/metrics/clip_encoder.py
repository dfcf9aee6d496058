"""CLIP's embeddings of pictures and captions, and retrieval by them.

Shapes: N pictures, H by W pixels, D numbers in an embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from galip.clip import ImageTower, TextTower, clip_tokenizer
from galip.config import TextTowerConfig
from galip.metrics.inception import quantize
from galip.metrics.pictures import too_few_captions

__all__ = ["CLIP_PREPROCESSING", "RETRIEVAL_GROUP", "ClipEncoder", "retrieval_accuracy"]

CLIP_PREPROCESSING = {
    "clean": "rounded to 8 bits; shorter side to CLIP's size, bicubic with antialiasing; centre; normalised",
    "released": "clamped, not rounded; nearest to CLIP's size; brought from [-1, 1] to [0, 1] twice",
}
"""What each protocol does to a picture before CLIP."""

RETRIEVAL_GROUP = 100
"""Captions that retrieval chooses among."""


class ClipEncoder:
    """CLIP's two towers, with pictures preprocessed by a protocol."""

    def __init__(
        self,
        text: TextTower,
        image: ImageTower,
        config: TextTowerConfig,
        protocol: str = "clean",
        device: torch.device | str = "cpu",
    ) -> None:
        self.text, self.image = text.eval().to(device), image.eval().to(device)
        self.protocol, self.device = protocol, torch.device(device)
        self._tokenizer = clip_tokenizer(config.merges, config.context_length)

    @torch.no_grad()
    def embed_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Return unit embeddings float32 (N, D) of captions."""
        parts = [
            self.text(torch.from_numpy(self._tokenizer.encode(list(captions[i : i + 256]))).to(self.device))
            for i in range(0, len(captions), 256)
        ]
        return F.normalize(torch.cat(parts).float(), dim=1).cpu().numpy()

    @torch.no_grad()
    def embed_pictures(self, pictures: Tensor) -> NDArray[np.float32]:
        """Return unit embeddings float32 (N, D) of pictures (N, 3, H, W), uint8 or float in [-1, 1]."""
        inputs = self.preprocess(pictures.to(self.device))
        if self.image.pixel_range == "released":
            inputs = 2 * inputs - 1  # the tower would rescale once more; here the protocol decides that
        _, embedding = self.image(inputs, ())
        return F.normalize(embedding.float(), dim=1).cpu().numpy()

    def sha256(self) -> str:
        """Return the sha256 of both towers' weights in order of their names: it tells which CLIP this is."""
        digest = hashlib.sha256()
        for tower in (self.text, self.image):
            for name, value in sorted(tower.state_dict().items()):
                digest.update(name.encode() + value.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def preprocess(self, pictures: Tensor) -> Tensor:
        """Turn pictures (N, 3, H, W) into the image tower's input, (N, 3, S, S) in [-1, 1]."""
        size = self.image.image_size
        if self.protocol == "released":
            floats = pictures.float() / 127.5 - 1 if pictures.dtype is torch.uint8 else pictures.float()
            return F.interpolate(floats.clamp(-1, 1) * 0.5 + 0.5, (size, size))
        pixels = quantize(pictures).float()
        shorter = min(pixels.shape[-2:])
        height, width = (max(round(side * size / shorter), size) for side in pixels.shape[-2:])
        if (height, width) != pixels.shape[-2:]:
            pixels = F.interpolate(
                pixels, (height, width), mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 255)
        top, left = (height - size) // 2, (width - size) // 2
        return pixels[:, :, top : top + size, left : left + size] / 127.5 - 1


def retrieval_accuracy(
    pictures: NDArray[np.float32], captions: NDArray[np.float32], names: Sequence[str], seed: int = 0
) -> float:
    """Return the share of pictures whose own caption is the nearest of `RETRIEVAL_GROUP`: unit embeddings
    (N, D) of both.

    Pictures are shuffled by `seed` and grouped so that no caption (`names`) comes twice in a group. The
    pictures left over don't count. Raises `UsageError` for too few different captions.
    """
    groups: list[dict[str, int]] = []
    for index in np.random.default_rng(seed).permutation(len(names)).tolist():
        name = names[index]
        open_groups = (group for group in groups[-50:] if len(group) < RETRIEVAL_GROUP and name not in group)
        group = next(open_groups, None)
        if group is None:
            groups.append(group := {})
        group[name] = index
    full = [list(group.values()) for group in groups if len(group) == RETRIEVAL_GROUP]
    if not full:
        raise too_few_captions(names, RETRIEVAL_GROUP, "retrieval")
    hits = [(pictures[rows] @ captions[rows].T).argmax(axis=1) == np.arange(RETRIEVAL_GROUP) for rows in full]
    return float(np.concatenate(hits).mean())
