"""`galip sample-grid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from galip_runtime.errors import FileRefused, UsageError

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

__all__ = ["sample_grid"]

_MOST_BYTES = 2**24
"""Of a file of prompts."""


def sample_grid(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Prompts, one per row.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Text file with one prompt per line.", show_default=False)
    ] = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(help="Columns, with seeds S, S+1, …")] = 6,
    truncation: Truncation = None,
    labels: Annotated[bool, typer.Option(help="Write prompts and seeds beside the pictures.")] = True,
    bundle: Bundle = None,
    checkpoint: Checkpoint = None,
    out: PictureFile = Path("galip.png"),
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    fallback: Fallback = False,
    metadata: Metadata = True,
    json: Json = False,
) -> None:
    """Generate a sheet of pictures: a row per prompt, a column per seed."""
    from galip_runtime import seed_series
    from galip_runtime.image import check_size, check_target, grid, grid_size, save_picture
    from galip_runtime.noise import check_truncation
    from galip_runtime.tokenizer import as_prompts

    from galip.sheets import labelled_sheet, labelled_size

    check_truncation(truncation)
    texts = [*(prompts or []), *(_read_prompts(prompts_file) if prompts_file else [])]
    if not texts:
        raise UsageError("there are no prompts: give some, or --prompts-file with one per line")
    check_target(out)
    as_prompts(texts)
    seeds = seed_series(seed, count)

    def check(height: int, width: int) -> None:
        if labels:
            check_size(out, *labelled_size(len(texts), count, height, width))
        else:
            check_size(out, *grid_size(len(texts) * count, height, width, count))

    model = load_model(bundle, checkpoint, device, precision, threads, fallback, check)
    pictures = model.generate(
        [text for text in texts for _ in seeds], seeds * len(texts), truncation=truncation
    )
    columns = [f"seed {number}" for number in seeds]
    sheet = labelled_sheet(pictures, texts, columns) if labels else grid(pictures, columns=count)
    save_picture(sheet, out, model.metadata(texts, seeds, truncation) if metadata else None)
    emit(
        {"file": str(out), "prompts": texts, "seeds": seeds, "truncation": truncation},
        json,
        f"{out}: {len(texts)} prompts, seeds {seeds[0]} to {seeds[-1]}",
        is_report=True,
    )


def _read_prompts(file: Path) -> list[str]:
    """Return the lines of `file` that are not blank, stripped."""
    from galip_runtime.files import read_regular

    from galip.data.texts import decode_text, lines_of

    try:
        data = read_regular(file, _MOST_BYTES)
    except FileRefused as error:
        raise UsageError(f"{error}; give a text file with one prompt per line") from error
    try:
        return lines_of(decode_text(data))
    except UnicodeDecodeError as error:
        raise FileRefused(f"{file} is not UTF-8; save it as UTF-8, one prompt per line") from error
