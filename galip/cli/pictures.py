"""`galip generate`, `galip interpolate` and `galip sample-grid`: pictures of a bundle, or of a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from galip_runtime.errors import FileRefused, UsageError

from galip.cli.common import Bundle, Device, Json, Precision, Progress, Threads, emit

if TYPE_CHECKING:
    from galip_runtime import TextToImage

__all__ = ["generate", "interpolate", "sample_grid"]

Seed = Annotated[
    int | None,
    typer.Option(
        help="0 to 2^64-1: the same seed, the same picture; drawn if not given.", show_default=False
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--model", help="Checkpoint to draw with in eager PyTorch, instead of a bundle.", show_default=False
    ),
]
Truncation = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Cut the noise at ±T, about 0.5 to 2: plainer pictures, less variety.",
        show_default=False,
    ),
]
_LARGEST_TEXT = 2**24
"""bytes of a file of prompts"""
PictureFile = Annotated[Path, typer.Option(help="File to write: .png, .jpg or .webp.")]


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help='What to show: "a red apple, 3D style".')
    ],
    bundle: Bundle = None,
    model: Checkpoint = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(help="Pictures a prompt, with seeds S, S+1, …")] = 1,
    truncation: Truncation = None,
    out: PictureFile = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make pictures from prompts.

    Several pictures come as one grid: a row a prompt, a column a seed.
    """
    from galip_runtime import seed_series
    from galip_runtime.image import check_size, check_target, grid, grid_size, save_picture
    from galip_runtime.noise import check_truncation

    check_target(out)
    check_truncation(truncation)
    seeds = seed_series(seed, count)
    columns = count if len(prompts) > 1 and count > 1 else None
    drawer = _load(bundle, model, device, precision, threads)
    side = (drawer.dimensions.image_height, drawer.dimensions.image_width)
    check_size(out, *grid_size(len(prompts) * count, *side, columns))
    texts = [prompt for prompt in prompts for _ in seeds]
    started = time.perf_counter()
    pictures = drawer.generate(texts, seeds * len(prompts), truncation=truncation)
    seconds = (time.perf_counter() - started) / len(pictures)
    save_picture(grid(pictures, columns), out)
    result = {
        "file": str(out),
        "prompts": texts,
        "seeds": seeds * len(prompts),
        "seconds_per_picture": seconds,
        "device": drawer.info()["device"],
        "precision": drawer.info()["precision"]["generator"],
    }
    named = f"seed {seeds[0]}" if count == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    emit(
        result,
        json,
        f"{out}: {len(pictures)} of {pictures.shape[2]}x{pictures.shape[1]} pixels, {named}, "
        f"{1000 * seconds:.0f} ms each on {result['device']}",
        is_report=True,
    )


def interpolate(
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="One, two or four prompts."),
    ],
    steps: Annotated[int, typer.Option(help="Pictures along a side, ends included.")] = 8,
    bundle: Bundle = None,
    model: Checkpoint = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="0 to 2^64-1; twice or four times to go between seeds; drawn if not given."),
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
    json: Json = False,
) -> None:
    """Go smoothly from prompt to prompt, from seed to seed, or both.

    Two of a kind make a strip, four are the corners of a square. Sentence vectors are mixed linearly, noise
    along the sphere it lies on.
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

    check_truncation(truncation)
    seeds = [check_seed(each) for each in seed or seed_series(None, 1)]
    check_corners(len(prompts), len(seeds), square)
    is_square = square or 4 in (len(prompts), len(seeds))
    count = check_steps(steps, is_square) ** (2 if is_square else 1)
    animated = out.suffix.lower() in ANIMATIONS
    if animated:
        check_target(out, ANIMATIONS)
    else:
        check_target(out)
    drawer = _load(bundle, model, device, precision, threads)
    side = (drawer.dimensions.image_height, drawer.dimensions.image_width)
    if animated:
        check_size(out, *side, frames=count, kinds=ANIMATIONS)
    else:
        check_size(out, *grid_size(count, *side, steps))
    frames = drawer.interpolate(prompts, steps, seeds=seeds, square=square, truncation=truncation)
    if animated:
        save_animation(frames, out)
    else:
        save_picture(grid(frames, columns=steps), out)
    said = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    emit(
        {"file": str(out), "prompts": prompts, "steps": steps, "seeds": seeds, "pictures": len(frames)},
        json,
        f"{out}: {len(frames)} pictures, {said}",
        is_report=True,
    )


def sample_grid(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Prompts, a row each.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Text file with a prompt a line.", show_default=False)
    ] = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(help="Columns, with seeds S, S+1, …")] = 6,
    truncation: Truncation = None,
    labels: Annotated[bool, typer.Option(help="Write prompts and seeds beside the pictures, or not.")] = True,
    bundle: Bundle = None,
    model: Checkpoint = None,
    out: PictureFile = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """A sheet of pictures: a row a prompt, a column a seed, the same seeds for all."""
    from galip_runtime import seed_series
    from galip_runtime.image import check_size, check_target, grid, grid_size, save_picture
    from galip_runtime.noise import check_truncation

    check_truncation(truncation)
    texts = [*(prompts or []), *(_lines(prompts_file) if prompts_file else [])]
    if not texts:
        raise UsageError("there is no prompt: give some, or --prompts-file with one a line")
    check_target(out)
    seeds = seed_series(seed, count)
    drawer = _load(bundle, model, device, precision, threads)
    side = (drawer.dimensions.image_height, drawer.dimensions.image_width)
    if labels:
        from galip.labels import labelled_sheet, labelled_size

        check_size(out, *labelled_size(len(texts), count, *side))
    else:
        check_size(out, *grid_size(len(texts) * count, *side, count))
    pictures = drawer.generate(
        [text for text in texts for _ in seeds], seeds * len(texts), truncation=truncation
    )
    sheet = labelled_sheet(pictures, texts, seeds) if labels else grid(pictures, columns=count)
    save_picture(sheet, out)
    emit(
        {"file": str(out), "prompts": texts, "seeds": seeds, "truncation": truncation},
        json,
        f"{out}: {len(texts)} prompts, seeds {seeds[0]} to {seeds[-1]}",
        is_report=True,
    )


def _lines(file: Path) -> list[str]:
    from galip_runtime.files import read_regular

    try:
        data = read_regular(file, _LARGEST_TEXT)
    except FileRefused as error:
        raise UsageError(f"{error}; give a text file, a prompt a line") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileRefused(f"{file} is no text in UTF-8; save it as such, a prompt a line") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _load(
    bundle: Path | None, model: Path | None, device: str, precision: str, threads: int | None
) -> TextToImage:
    if model is not None:
        if bundle is not None:
            raise UsageError("give --bundle or --model, not both")
        from galip.eager import load_eager

        return load_eager(model, device, precision, threads)
    import galip_runtime

    from galip.assets import default_bundle

    if bundle is None:
        with Progress() as progress:
            bundle = default_bundle(progress)
    return galip_runtime.load(bundle, device=device, precision=precision, threads=threads)
