"""A checkpoint of a preset's shape with random weights, to measure speed without the trained ones.

    python -m galip_bench.random_weights released released.safetensors

Times and memory are those of trained weights; parity in fp32 is much the same; fp16, bf16 and int8 lose other
amounts on trained weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from galip_runtime.errors import GalipError

from galip.checkpoint import save_galip
from galip.model import Galip
from galip.presets import preset

__all__ = ["main"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m galip_bench.random_weights", description=__doc__)
    parser.add_argument("preset", help="its name, as galip train --model takes it")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    try:
        save_galip(arguments.out, Galip(preset(arguments.preset)))
    except GalipError as error:
        sys.exit(f"galip: {error}")


if __name__ == "__main__":
    main()
