"""Tiny pictures and models for the tests of several areas."""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from galip.config import GalipConfig
from galip.model import Galip
from galip.presets import preset

__all__ = ["boxes", "random_model", "small_config"]

SIZE = 28
COLOURS = {"red": (230, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "black": (20, 20, 20)}


def boxes(count: int, seed: int) -> Iterator[tuple[str, bytes, str, dict[str, Any]]]:
    """Yield coloured boxes on white, 28 pixels square, as `write_shards` expects them."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        colour = list(COLOURS)[index % len(COLOURS)]
        picture = np.full((SIZE, SIZE, 3), 255, np.uint8)
        top, left = rng.integers(0, 14, 2)
        picture[top : top + 12, left : left + 12] = COLOURS[colour]
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        meta = {
            "captions": [f"{colour} square", f"a square that is {colour}"],
            "colour": colour,
            "rank": index,
        }
        yield f"box{index:03}", png.getvalue(), f"a {colour} box", meta


def random_model(config: GalipConfig) -> Galip:
    """Return a model of `config` with every tensor random; as built, its affines would be the identity."""
    torch.manual_seed(0)
    model = Galip(config).eval()
    for tensor in model.parameters():
        noise = torch.randn(tensor.shape)
        tensor.data = noise * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else tensor.data + 0.1 * noise
    return model


def small_config(**generator: Any) -> GalipConfig:
    """Return the preset `tiny` with a generator of one block of each kind, changed by `generator`."""
    config = preset("tiny")
    sizes: dict[str, Any] = {"fusion_blocks": 1, "clip_layers": 1, "prompt_layers": (0,)}
    sizes |= {"channels": (16, 8), "sizes": (8,), **generator}
    return dataclasses.replace(config, generator=dataclasses.replace(config.generator, **sizes))
