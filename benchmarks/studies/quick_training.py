"""How long `galip train --preset quick` takes, and whether one recognises its pictures:
`python -m studies.quick_training data/icons128 --out FILE.json`.

Trains on icons of things that the shipped generator has not seen, a picture each, in a folder as a user has
it. Then draws every caption, and finds the training pictures that are nearest to the drawing in pixels. The
shipped towers have seen most of these icons.

Found: see `training_quick.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from galip_bench.machine import describe_machine
from galip_runtime import TextToImage, console
from galip_runtime.errors import GalipError, UsageError
from numpy.typing import NDArray
from PIL import Image

from galip.data.sources import open_source
from galip.eager import load_eager

__all__ = ["export_unseen", "main", "measure", "recognised"]

SCHEMA = 1
GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
SEEN_RANK = 5771
"""The shipped generator has seen the things up to it."""
SEEDS = range(6)
"""Drawings of each caption; the nearest counts, as seeds move and scale what they show."""
BATCH = 32


def export_unseen(shards: Path, style: str, folder: Path) -> int:
    """Write the icons of `style` that the shipped generator has not seen to `folder`, with a caption each;
    return their number. Raises `UsageError` if there are none.
    """
    source = open_source(shards, "train")
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for index in range(len(source)):
        meta = source.meta(index)
        rank = meta.get("rank")
        if meta.get("style") != style or meta.get("group") not in GROUPS:
            continue
        if meta.get("variant") or (isinstance(rank, int | float) and rank <= SEEN_RANK):
            continue
        picture = folder / f"{count:05}.png"
        source[index].picture.save(picture)
        picture.with_suffix(".txt").write_text(str(meta["thing"]), encoding="utf-8")
        count += 1
    if not count:
        raise UsageError(f"{shards} has no icons in {style!r} that the shipped model has not seen")
    return count


def recognised(model: TextToImage, folder: Path) -> dict[str, float]:
    """Return the share of the captions in `folder` whose own picture is the nearest to their drawing, and the
    share for which it is among the five nearest.
    """
    files = sorted(folder.glob("*.png"))
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8") for file in files]
    size = (model.dimensions.image_width, model.dimensions.image_height)
    pictures = [Image.open(file).convert("RGB").resize(size, Image.Resampling.BILINEAR) for file in files]
    real = np.stack([_pixels(picture) for picture in pictures])  # (N, 3·S·S)
    ranks = []
    for start in range(0, len(captions), BATCH):
        prompts = captions[start : start + BATCH]
        nearest = np.full((len(prompts), len(real)), np.inf)
        for seed in SEEDS:
            drawings = np.stack([_pixels(picture) for picture in model.generate(prompts, seeds=seed)])
            nearest = np.minimum(nearest, _squared_distances(drawings, real))
        own = nearest[np.arange(len(prompts)), start + np.arange(len(prompts))]
        ranks += (nearest < own[:, None]).sum(axis=1).tolist()
    return {"nearest": float(np.mean([rank == 0 for rank in ranks])),
            "among_five": float(np.mean([rank < 5 for rank in ranks])),
            "pictures": float(len(real))}  # fmt: skip


def _pixels(picture: Any) -> NDArray[np.float32]:
    return np.asarray(picture).astype(np.float32).ravel() / np.float32(255)


def _squared_distances(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared distances (N, M) of rows (N, P) and (M, P)."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None]
    return (squares - 2 * one @ other.T).astype(np.float32)


def measure(shards: Path, style: str, runs: Path) -> dict[str, Any]:
    """Train and look; return the result file's content. Raises `UsageError`, and if the training fails."""
    machine = asdict(describe_machine())
    pictures, out = runs / "pictures", runs / "run"
    count = export_unseen(shards, style, pictures)
    command = ["train", "--preset", "quick", "--data", str(pictures), "--out", str(out)]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "galip", *command], check=True)
    seconds = time.perf_counter() - began
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {
        "schema": SCHEMA,
        "benchmark": "quick_training",
        "data": {"style": style, "pictures": count},
        "machine": machine,
        "seconds": seconds,
        "steps": log[-1]["step"],
        "pixel_distance": {line["step"]: line["pixel"] for line in log if "pixel" in line},
        "recognised": recognised(load_eager(out / "model.safetensors"), pictures),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the study and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("shards", type=Path, help="of `galip data icons`")
    parser.add_argument("--style", default="noto style")
    parser.add_argument("--runs", type=Path, default=Path("runs/quick"), help="a new folder for the run")
    parser.add_argument("--out", type=Path, required=True, help="the result file")
    options = parser.parse_args(arguments)
    try:
        result = measure(options.shards, options.style, options.runs)
    except GalipError as error:
        console.failure("error", error)
        return error.exit_code
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    shares = result["recognised"]
    console.message(
        f"{result['seconds'] / 60:.1f} minutes; of {shares['pictures']:.0f} pictures {shares['nearest']:.0%} "
        f"are the nearest to the drawing of their caption, {shares['among_five']:.0%} among the five nearest"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
