"""`galip generate` and `galip interpolate`: pictures through the runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from galip_runtime.errors import UsageError

from galip.cli.common import Bundle, Device, Json, Precision, Progress, Threads, emit

if TYPE_CHECKING:
    from galip_runtime import Model

__all__ = ["generate", "interpolate"]

Seed = Annotated[
    int | None,
    typer.Option(
        help="0 to 2^64-1: the same seed, the same picture; drawn if not given.", show_default=False
    ),
]


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help='What to show: "a red apple, 3D style".')
    ],
    bundle: Bundle = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(help="Pictures a prompt, with seeds S, S+1, …")] = 1,
    out: Annotated[Path, typer.Option(help="File to write: .png, .jpg or .webp.")] = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make pictures from prompts.

    Several pictures come as one grid: a row a prompt, a column a seed.
    """
    from galip_runtime import seed_series
    from galip_runtime.image import check_target, grid, save_picture

    check_target(out)
    seeds = seed_series(seed, count)
    model = _load(bundle, device, precision, threads)
    texts = [prompt for prompt in prompts for _ in seeds]
    started = time.perf_counter()
    pictures = model.generate(texts, seeds * len(prompts))
    seconds = (time.perf_counter() - started) / len(pictures)
    save_picture(grid(pictures, columns=count if len(prompts) > 1 and count > 1 else None), out)
    result = {
        "file": str(out),
        "prompts": texts,
        "seeds": seeds * len(prompts),
        "seconds_per_picture": seconds,
        "device": model.info()["device"],
        "precision": model.info()["precision"]["generator"],
    }
    named = f"seed {seeds[0]}" if count == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    emit(
        result,
        json,
        f"{out}: {len(pictures)} of {pictures.shape[2]}x{pictures.shape[1]} pixels, {named}, "
        f"{1000 * seconds:.0f} ms each on {result['device']}",
    )


def interpolate(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT PROMPT [PROMPT PROMPT]",
            help="Two prompts for a strip, four for the corners of a square.",
        ),
    ],
    steps: Annotated[int, typer.Option(help="Pictures along a side, ends included.")] = 8,
    bundle: Bundle = None,
    seed: Seed = None,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .png or .jpg for a strip or square, .gif or .webp for an animation."
        ),
    ] = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Go smoothly from prompt to prompt.

    All pictures have the same noise; the sentence vectors are mixed.
    """
    from galip_runtime import seed_series
    from galip_runtime.image import ANIMATIONS, check_target, grid, save_animation, save_picture

    if len(prompts) not in (2, 4):
        raise UsageError(f"interpolation goes between two or four prompts, {len(prompts)} were given")
    animated = out.suffix.lower() in ANIMATIONS
    if animated:
        check_target(out, ANIMATIONS)
    else:
        check_target(out)
    (number,) = seed_series(seed, 1)
    model = _load(bundle, device, precision, threads)
    frames = model.interpolate(prompts, steps, number)
    if animated:
        save_animation(frames, out)
    else:
        save_picture(grid(frames, columns=steps), out)
    emit(
        {"file": str(out), "prompts": prompts, "steps": steps, "seed": number, "pictures": len(frames)},
        json,
        f"{out}: {len(frames)} pictures, seed {number}",
    )


def _load(bundle: Path | None, device: str, precision: str, threads: int | None) -> Model:
    import galip_runtime

    from galip.assets import default_bundle

    if bundle is None:
        with Progress() as progress:
            bundle = default_bundle(progress)
    return galip_runtime.load(bundle, device=device, precision=precision, threads=threads)
