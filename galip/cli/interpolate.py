"""`galip interpolate`."""

from __future__ import annotations

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
    Precision,
    Threads,
    Truncation,
)
from galip.cli.output import emit
from galip.cli.pictures import load_model

__all__ = ["interpolate"]


def interpolate(
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="One, two or four prompts."),
    ],
    steps: Annotated[int, typer.Option(help="Pictures along each side, ends included.")] = 8,
    bundle: Bundle = None,
    checkpoint: Checkpoint = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="0 to 2^64-1. Give two or four to interpolate between seeds. Default: a random one."
        ),
    ] = None,
    square: Annotated[
        bool,
        typer.Option("--square", help="Two prompts from left to right, two seeds from top to bottom."),
    ] = False,
    truncation: Truncation = None,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .png or .jpg for a strip or square, .gif or .webp for an animation."
        ),
    ] = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    fallback: Fallback = False,
    metadata: Metadata = True,
    json: Json = False,
) -> None:
    """Interpolate between prompts, between seeds, or both.

    Two prompts or seeds make a strip, four are the corners of a square. Sentence vectors are interpolated
    linearly (lerp), noise along the sphere (slerp).
    """
    from galip_runtime import seed_series
    from galip_runtime.image import (
        ANIMATIONS,
        check_size,
        check_target,
        grid,
        grid_size,
        save_animation,
        save_picture,
    )
    from galip_runtime.interpolation import check_corners, check_steps
    from galip_runtime.noise import check_seed, check_truncation
    from galip_runtime.tokenizer import as_prompts

    check_truncation(truncation)
    as_prompts(prompts)
    seeds = [check_seed(value) for value in seed or seed_series(None, 1)]
    check_corners(len(prompts), len(seeds), square)
    is_square = square or 4 in (len(prompts), len(seeds))
    count = check_steps(steps, is_square) ** (2 if is_square else 1)
    is_animation = out.suffix.lower() in ANIMATIONS
    if is_animation:
        check_target(out, ANIMATIONS)
    else:
        check_target(out)

    def check(height: int, width: int) -> None:
        if is_animation:
            check_size(out, height, width, frames=count, kinds=ANIMATIONS)
        else:
            check_size(out, *grid_size(count, height, width, steps))

    model = load_model(bundle, checkpoint, device, precision, threads, fallback, check)
    frames = model.interpolate(prompts, steps, seeds=seeds, square=square, truncation=truncation)
    if is_animation:
        save_animation(frames, out)
    else:
        texts = model.metadata(prompts, seeds, truncation) if metadata else None
        save_picture(grid(frames, columns=steps), out, texts)
    seed_list = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    emit(
        {"file": str(out), "prompts": prompts, "steps": steps, "seeds": seeds, "pictures": len(frames)},
        json,
        f"{out}: {len(frames)} pictures, {seed_list}",
        is_report=True,
    )
