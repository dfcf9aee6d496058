"""What CLIP says of pictures and their captions: CLIP score and retrieval.

Shapes: N pictures, H by W pixels, D numbers in an embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from galip_runtime.errors import UsageError
from numpy.typing import NDArray
from torch import Tensor

from galip.clip import ImageTower, TextTower, clip_tokenizer
from galip.config import TextTowerConfig
from galip.metrics.inception import quantised

__all__ = ["CLIP_VIEWS", "ClipJudge", "check_retrieval", "retrieval"]

CLIP_VIEWS = {
    "clean": "rounded to 8 bits; shorter side to CLIP's size, bicubic with antialiasing; centre; normalised",
    "released": "clamped, not rounded; nearest to CLIP's size; brought from [-1, 1] to [0, 1] twice",
}
"""What happens to a picture before CLIP sees it."""

GROUP = 100
"""Captions that retrieval chooses among."""


class ClipJudge:
    """CLIP's two towers, which see pictures by a protocol."""

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
    def of_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Unit embeddings float32 (N, D) of captions."""
        parts = [
            self.text(torch.from_numpy(self._tokenizer.encode(list(captions[i : i + 256]))).to(self.device))
            for i in range(0, len(captions), 256)
        ]
        return F.normalize(torch.cat(parts).float(), dim=1).cpu().numpy()

    @torch.no_grad()
    def of_pictures(self, pictures: Tensor) -> NDArray[np.float32]:
        """Unit embeddings float32 (N, D) of pictures (N, 3, H, W), uint8 or float in [-1, 1]."""
        seen = self.view(pictures.to(self.device))
        if self.image.pixel_range == "released":
            seen = 2 * seen - 1  # the tower would rescale once more; here the protocol decides that
        _, embedding = self.image(seen, ())
        return F.normalize(embedding.float(), dim=1).cpu().numpy()

    def sha256(self) -> str:
        """Of both towers' weights, in order of their names: which CLIP judged."""
        digest = hashlib.sha256()
        for tower in (self.text, self.image):
            for name, value in sorted(tower.state_dict().items()):
                digest.update(name.encode() + value.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def view(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) as the image tower takes them, (N, 3, S, S) in [-1, 1]."""
        size = self.image.image_size
        if self.protocol == "released":
            floats = pictures.float() / 127.5 - 1 if pictures.dtype is torch.uint8 else pictures.float()
            return F.interpolate(floats.clamp(-1, 1) * 0.5 + 0.5, (size, size))
        whole = quantised(pictures).float()
        shorter = min(whole.shape[-2:])
        height, width = (max(round(side * size / shorter), size) for side in whole.shape[-2:])
        if (height, width) != whole.shape[-2:]:
            whole = F.interpolate(
                whole, (height, width), mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 255)
        top, left = (height - size) // 2, (width - size) // 2
        return whole[:, :, top : top + size, left : left + size] / 127.5 - 1


def check_retrieval(names: Sequence[str]) -> None:
    """Raises `UsageError` for too few different captions."""
    if len(set(names)) < GROUP:
        raise _too_few(names)


def _too_few(names: Sequence[str]) -> UsageError:
    return UsageError(
        f"retrieval needs {GROUP} pictures of different captions; there are {len(set(names))} captions "
        f"on {len(names)} pictures. Give more pictures (--count)"
    )


def retrieval(
    pictures: NDArray[np.float32], captions: NDArray[np.float32], names: Sequence[str], seed: int = 0
) -> float:
    """Share of pictures whose own caption is the nearest of `GROUP`: unit embeddings (N, D) of both.

    Pictures are shuffled by `seed` and grouped so that no caption (`names`) comes twice in a group. What is
    left over doesn't count. Raises `UsageError` as `check_retrieval`.
    """
    groups: list[dict[str, int]] = []
    for index in np.random.default_rng(seed).permutation(len(names)).tolist():
        name = names[index]
        group = next((each for each in groups[-50:] if len(each) < GROUP and name not in each), None)
        if group is None:
            groups.append(group := {})
        group[name] = index
    full = [list(each.values()) for each in groups if len(each) == GROUP]
    if not full:
        raise _too_few(names)
    hits = [(pictures[rows] @ captions[rows].T).argmax(axis=1) == np.arange(GROUP) for rows in full]
    return float(np.concatenate(hits).mean())
