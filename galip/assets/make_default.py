"""The shipped model, from nothing: `make default-model`.

Builds the icon pictures, trains CLIP's towers, trains GALIP, stores the result as fp16 beside this file and
draws the pictures of the model card. A step whose result is there is not repeated; a run that was cut short
is resumed. The numbers below are the recipe; MODEL_CARD.md says what came of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from galip.assets import default_checkpoint
from galip.assets.card import draw_card
from galip.checkpoint import PARTS, load_galip, read_info, save_galip
from galip.data.icons import build_icons
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.contrastive import train_clip
from galip.train.gan import train
from galip.train.presets import resolve

PEOPLE_AND_FLAGS = (
    "skin_tone",
    "group=people-body",
    "group=flags",
    "group=symbols",
    "group=component",
    "group=other",
)
COMMONEST = "rank>5771"
"""The 200 commonest things, by `galip.data.icons_card`'s rule: about what this training has time for."""

SAMPLE_PROMPTS = (
    "a red apple, 3D style",
    "a cat, noto style",
    "an automobile, flat style",
    "a house, twemoji style",
    "a red heart, emojione style",
    "a thinking face, blob style",
    "a fish, firefox style",
    "a pizza, 3D style",
)


def clip_config(data: str, out: str) -> ContrastiveConfig:
    """A quarter of an hour of two cores: more passes over so few pictures hardly help."""
    return ContrastiveConfig(
        data=data, out=out, steps=600, whiten=True, exclude=("skin_tone", "group=flags", "group=component")
    )


def gan_config(data: str, clip: str, out: str) -> GanConfig:
    """The preset `icons`, of the commonest things: a plain regression, then GALIP with paired losses that
    fade out, then GALIP's own losses.
    """
    options = {
        "data": data,
        "clip": clip,
        "out": out,
        "exclude": (*PEOPLE_AND_FLAGS, COMMONEST),
        "sample_prompts": SAMPLE_PROMPTS,
    }
    return resolve(GanConfig, options, "icons")


def main() -> None:
    """Run a stage of the recipe: `towers` in one process, then `galip` in one or, by torchrun, in several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("towers", "galip"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the training runs")
    options = parser.parse_args()

    def echo(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    clip = options.runs / "clip" / "clip.safetensors"
    if options.stage == "towers":
        build_icons(options.data, size=64)
        if not clip.exists():
            train_clip(clip_config(str(options.data), str(clip.parent)), resume=True, echo=echo)
        return
    run = options.runs / "galip"
    trained = train(gan_config(str(options.data), str(clip), str(run)), resume=True, echo=echo)
    if os.environ.get("RANK", "0") == "0":
        publish(trained)
        draw_card(default_checkpoint(), options.data, options.runs)


def publish(trained: Path) -> None:
    """Store `trained` as the shipped checkpoint, in fp16."""
    note = read_info(trained).note
    save_galip(
        default_checkpoint(),
        load_galip(trained, needs=PARTS),
        dtype=torch.float16,
        note=note,
    )


if __name__ == "__main__":
    main()
