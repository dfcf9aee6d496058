"""Colour, variety and sharpness of a model's pictures, which no metric of `galip evaluate` looks at.

PYTHONPATH=recipes python -m icons.measure --data data/icons128 --perceptual VGG16.safetensors --out M.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galip_runtime.files import check_writable, sha256_file, write_atomically
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from galip.assets import STYLES, checkpoint_path
from galip.data.conditions import excluded
from galip.data.shards import Sample, read_samples
from galip.eager import load_eager
from galip.train.augment import to_float
from galip.train.perceptual import load_perceptual, perceptual_distance
from icons.colours import colour_in_name, measure_colours
from icons.commands import exit_on_error
from icons.commonness import commonest_things
from icons.model_card import SEED
from icons.selection import TOWERS_LEAVE_OUT, VARIANTS
from icons.spectrum import compare_spectra, plot_spectra
from icons.variety import Distance, measure_variety

__all__ = ["measure"]

COLOUR_SEEDS = range(4)

Pictures = NDArray[np.uint8]


def measure(checkpoint: Path, data: Path, perceptual: Path) -> dict[str, Any]:
    """Measure `checkpoint` beside the train split of the icons in `data`; fit for JSON.

    `perceptual`: weights of LPIPS, as `icons.perceptual_weights` makes them. Pictures are of the card's 40
    things in all styles. Raises `FileRefused` and `UsageError` for files that cannot be used.
    """
    distance = lpips(perceptual)
    model = load_eager(checkpoint)
    prompts = {thing.thing: thing.prompt for thing in commonest_things(data)}
    icons = [icon for icon in read_samples(data, "train") if _is_used(icon, prompts)]
    real = {(icon.meta["thing"], icon.meta["style"]): icon.picture for icon in icons}
    coloured = [icon for icon in icons if colour_in_name(icon.meta["thing"])]
    return {
        "model": sha256_file(checkpoint),
        "colours": measure_colours(model, coloured, COLOUR_SEEDS),
        "variety": measure_variety(model, prompts, real, distance, STYLES),
        "spectrum": _spectrum(model, prompts, real),
    }


def _is_used(icon: Sample, things: dict[str, str]) -> bool:
    """Return whether a drawing is of one of the `things`, or of another whose name has a colour."""
    meta = icon.meta
    if excluded(meta, (*TOWERS_LEAVE_OUT, "group=people-body", VARIANTS)):
        return False
    return meta["thing"] in things or bool(colour_in_name(meta["thing"]))


def _spectrum(
    model: TextToImage, prompts: dict[str, str], real: dict[tuple[str, str], Pictures]
) -> dict[str, Any]:
    drawn = [(thing, style) for thing in prompts for style in STYLES if (thing, style) in real]
    made = model.generate([f"{prompts[thing]}, {style}" for thing, style in drawn], seeds=SEED)
    return compare_spectra(made, np.stack([_resized(real[key], made.shape[1]) for key in drawn]))


def _resized(picture: Pictures, side: int) -> Pictures:
    if len(picture) == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def lpips(weights: Path) -> Distance:
    """Return LPIPS by the network in the file `weights`."""
    features = load_perceptual(weights)

    def maps(picture: Pictures) -> list[Tensor]:
        return features(to_float(torch.from_numpy(picture.copy())).permute(2, 0, 1)[None])

    def distance(first: Pictures, second: Pictures) -> float:
        with torch.inference_mode():
            return float(perceptual_distance(features.linear_weights, maps(first), maps(second)))

    return distance


@exit_on_error("icons.measure")
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a checkpoint; default: the shipped one")
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--perceptual", type=Path, required=True, help="weights of LPIPS")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file for the results")
    parser.add_argument("--plot", type=Path, help="a PNG for the spectra")
    options = parser.parse_args(arguments)
    for target in filter(None, (options.out, options.plot)):
        check_writable(target)
    results = measure(checkpoint_path(options.model), options.data, options.perceptual)
    write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())
    if options.plot:
        plot_spectra(results["spectrum"], options.plot)


if __name__ == "__main__":
    main()
