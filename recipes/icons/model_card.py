"""The pictures of the model card, generated from the shipped model's bundle, and its training logs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime import Model, load
from galip_runtime.image import grid, save_picture
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from galip.assets import STYLES
from galip.data.conditions import excluded
from galip.data.shards import read_metas
from icons.commonness import commonest_things

__all__ = ["copy_logs", "save_card", "save_rivals"]

SEED = 1
HERO = (
    ("a red apple", "a cat", "an automobile", "a house", "a red heart", "a thinking face", "a pizza", "fire"),
    STYLES,
)
LOGS = {"galip-64": "64", "galip": "128", "sharp": "sharp"}
"""Runs of GALIP, and what their logs and curves are called in the card."""

Pictures = NDArray[np.uint8]


def save_card(checkpoint: Path, data: Path, folder: Path) -> None:
    """Write the card's pictures to `folder`: things, seeds, styles."""
    from galip_export import export_bundle

    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "bundle"
        export_bundle(checkpoint, bundle)
        model = load(bundle, device="cpu")
    common = [thing.prompt for thing in commonest_things(data)]
    (folder / "commonest.json").write_text(json.dumps(common, indent=1) + "\n")
    save_picture(table(model, common, STYLES, blocks=2), folder / "commonest.png")
    save_picture(table(model, held_out(data, 20), STYLES, blocks=2), folder / "held_out.png")
    save_picture(
        grid(
            model.generate([f"{thing}, {style}" for style in HERO[1] for thing in HERO[0]], seeds=SEED),
            columns=len(HERO[0]),
        ),
        folder / "pictures.png",
    )
    save_picture(
        seeds_table(model, [f"{thing}, {STYLES[0]}" for thing in common[::5]], 10), folder / "seeds.png"
    )
    rows = [(f"{thing}, {STYLES[0]}", f"{thing}, {STYLES[4]}") for thing in HERO[0][:6]]
    save_picture(
        grid(np.concatenate([model.interpolate(pair, 10, SEED) for pair in rows]), columns=10),
        folder / "interpolation.png",
    )


def copy_logs(runs: Path, folder: Path) -> None:
    """Copy the logs of GALIP's trainings from `runs` to `folder` and plot their curves."""
    for name, label in LOGS.items():
        log = runs / name / "log.jsonl"
        shutil.copyfile(log, folder / f"log_{label}.jsonl")
        plot_curves(log, folder / f"curves_{label}.png")


def save_rivals(runs: Path, names: Sequence[str], file: Path) -> None:
    """Write a sheet with a row per run `names` in `runs`: the same things, style and seed, at double size."""
    from galip.eager import load_eager

    things, style = HERO[0], STYLES[0]
    rows = []
    for name in names:
        model = load_eager(runs / name / "model.safetensors", "cpu")
        rows.append(model.generate([f"{thing}, {style}" for thing in things], seeds=SEED))
    pictures = np.concatenate(rows).repeat(2, axis=1).repeat(2, axis=2)
    save_picture(labelled(pictures, names, things, len(names)), file)


def held_out(data: Path, count: int) -> list[str]:
    """Return `count` things of the test split, which training never saw, as prompts without style."""
    prompts: dict[str, str] = {}
    for meta in read_metas(data, "test"):
        if not excluded(meta, ("skin_tone", "variant")) and meta["group"] in (
            "animals-nature",
            "food-drink",
            "travel-places",
            "objects",
            "activities",
            "smileys-emotion",
        ):
            prompts.setdefault(meta["thing"], meta["captions"][0].removesuffix(f", {meta['style']}"))
    names = sorted(prompts)
    return [prompts[names[index * len(names) // count]] for index in range(min(count, len(names)))]


def table(model: Model, things: Sequence[str], styles: Sequence[str], blocks: int) -> Pictures:
    """Return a labelled sheet (H, W, 3): a row per thing, a column per style, in `blocks` side by side."""
    pictures = model.generate([f"{thing}, {style}" for thing in things for style in styles], seeds=SEED)
    rows = -(-len(things) // blocks)
    return labelled(pictures, things, [style.removesuffix(" style") for style in styles], rows)


def seeds_table(model: Model, prompts: Sequence[str], seeds: int) -> Pictures:
    """Return a labelled sheet (H, W, 3): a row per prompt, a column per seed."""
    pictures = model.generate(
        [prompt for prompt in prompts for _ in range(seeds)], seeds=list(range(seeds)) * len(prompts)
    )
    return labelled(pictures, prompts, [f"seed {seed}" for seed in range(seeds)], len(prompts))


def labelled(
    pictures: Pictures, rows: Sequence[str], columns: Sequence[str], rows_per_block: int
) -> Pictures:
    """Lay out pictures (rows · columns, H, W, 3) with names left and above, in blocks side by side."""
    side, left, top, gap = pictures.shape[1], 205, 22, 4
    cell = side + gap
    blocks = -(-len(rows) // rows_per_block)
    width = left + len(columns) * cell
    sheet = Image.new("RGB", (blocks * width, top + rows_per_block * cell), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for block in range(blocks):
        for index, name in enumerate(columns):
            draw.text(
                (block * width + left + index * cell + side / 2, top / 2), name, "#444", font, anchor="mm"
            )
    for index, name in enumerate(rows):
        x, y = index // rows_per_block * width, top + index % rows_per_block * cell
        label = name if len(name) <= 28 else name[:27] + "…"
        draw.text((x + left - 8, y + side / 2), label, "#222", font, anchor="rm")
        for column in range(len(columns)):
            sheet.paste(
                Image.fromarray(pictures[index * len(columns) + column]), (x + left + column * cell, y)
            )
    return np.asarray(sheet)


def plot_curves(log: Path, out: Path) -> None:
    """Plot the curves of a GALIP training's `log.jsonl` to one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    gan: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    warmup = [line for line in gan if "d_real" not in line]
    adversarial = [line for line in gan if "d_real" in line]
    panels = [
        ("warm-up", warmup, ["pixel", "perceptual"]),
        ("discriminator's hinge terms", adversarial, ["d_real", "d_mis", "d_fake"]),
        ("projected heads' hinge terms", adversarial, ["p_real", "p_mis", "p_fake"]),
        ("generator", adversarial, ["g_adv", "clip_sim", "g_proj"]),
        ("paired losses, fading out", adversarial, ["pixel", "feature", "perceptual"]),
    ]
    panels = [panel for panel in panels if any(name in line for line in panel[1] for name in panel[2])]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(16, 3.4), layout="constrained", squeeze=False)
    for axis, (title, lines, names) in zip(axes[0], panels, strict=True):
        for name in names:
            if points := [(line["step"], line[name]) for line in lines if name in line]:
                axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=90)
    pyplot.close(figure)
