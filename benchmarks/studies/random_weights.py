"""A checkpoint of a preset's shape with random weights, to measure speed without the trained ones.

    python -m studies.random_weights released released.safetensors

Times and memory are those of trained weights. Pictures have the contrast of trained ones, so that gates mean
something; but what fp16, bf16 and int8 lose is other on trained weights, and int8 may leave more in float.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import galip_runtime.noise
import torch
from galip_runtime.errors import GalipError

from galip.checkpoint import save_galip
from galip.model import Galip
from galip.presets import preset

__all__ = ["CONTRAST", "main", "set_contrast"]


CONTRAST = 0.5
"""Standard deviation of the pictures."""


def set_contrast(model: Galip) -> None:
    """Scale the last convolution of `model`'s generator, in place, so that pictures have `CONTRAST`."""
    config = model.config
    noise = torch.from_numpy(galip_runtime.noise.noise(range(4), config.generator.noise_dim))
    with torch.no_grad():
        sentence = torch.randn(len(noise), config.clip.embed_dim)
        factor = CONTRAST / float(model.generator(noise, sentence).std())
        for parameter in model.generator.to_rgb.parameters():
            parameter.mul_(factor)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.random_weights", description=__doc__)
    parser.add_argument("preset", help="its name, as galip train --model takes it")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    try:
        model = Galip(preset(arguments.preset)).eval()
        set_contrast(model)
        save_galip(arguments.out, model)
    except GalipError as error:
        sys.exit(f"galip: {error}")


if __name__ == "__main__":
    main()
