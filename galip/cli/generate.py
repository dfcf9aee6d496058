"""`galip generate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from galip.cli.options import (
    Bundle,
    Checkpoint,
    Device,
    Fallback,
    Json,
    Metadata,
    PictureFile,
    Precision,
    Seed,
    Threads,
    Truncation,
)
from galip.cli.output import emit
from galip.cli.pictures import load_model

__all__ = ["generate"]


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help='What to show: "a red apple, 3D style".')
    ],
    bundle: Bundle = None,
    checkpoint: Checkpoint = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(help="Pictures per prompt, with seeds S, S+1, …")] = 1,
    truncation: Truncation = None,
    out: PictureFile = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    fallback: Fallback = False,
    metadata: Metadata = True,
    json: Json = False,
) -> None:
    """Generate pictures from prompts.

    Several pictures go into one grid: a row per prompt, a column per seed.
    """
    from galip_runtime import seed_series
    from galip_runtime.image import check_size, check_target, grid, grid_size, save_picture
    from galip_runtime.noise import check_truncation
    from galip_runtime.tokenizer import as_prompts

    check_target(out)
    check_truncation(truncation)
    as_prompts(prompts)
    seeds = seed_series(seed, count)
    columns = count if len(prompts) > 1 and count > 1 else None

    def check(height: int, width: int) -> None:
        check_size(out, *grid_size(len(prompts) * count, height, width, columns))

    model = load_model(bundle, checkpoint, device, precision, threads, fallback, check)
    texts = [prompt for prompt in prompts for _ in seeds]
    started = time.perf_counter()
    pictures = model.generate(texts, seeds * len(prompts), truncation=truncation)
    seconds = (time.perf_counter() - started) / len(pictures)
    save_picture(
        grid(pictures, columns), out, model.metadata(prompts, seeds, truncation) if metadata else None
    )
    result = {
        "file": str(out),
        "prompts": texts,
        "seeds": seeds * len(prompts),
        "seconds_per_picture": seconds,
        "device": model.info()["device"],
        "precision": model.info()["precision"]["generator"],
    }
    seed_range = f"seed {seeds[0]}" if count == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    emit(
        result,
        json,
        f"{out}: {len(pictures)} of {pictures.shape[2]}x{pictures.shape[1]} pixels, {seed_range}, "
        f"{1000 * seconds:.0f} ms each on {result['device']}",
        is_report=True,
    )
