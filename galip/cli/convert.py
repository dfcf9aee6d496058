"""`galip convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galip.cli.options import Json
from galip.cli.output import ProgressBar, emit

__all__ = ["convert"]


def convert(
    released: Annotated[Path, typer.Argument(help="Released GALIP checkpoint (.pth).")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write (.safetensors).")],
    clip: Annotated[
        str | None,
        typer.Option(
            help="CLIP ViT-B/32's weights: a file of OpenAI, transformers or open_clip, a folder with one, "
            "or an open_clip tag such as openai or MODEL:TAG.",
            show_default=False,
        ),
    ] = None,
    allow_missing_text: Annotated[
        bool,
        typer.Option(
            "--allow-missing-text", help="Without --clip: convert only the generator and discriminator."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Convert a released GALIP checkpoint to a galip checkpoint."""
    from galip.checkpoint_info import read_info
    from galip.early_checks import check_conversion

    check_conversion(released, clip, out, allow_missing_text)
    from galip.convert import convert_released

    with ProgressBar() as progress:
        progress("reading and converting", 0, 1)
        convert_released(released, out, clip=clip, allow_missing_text=allow_missing_text)
    parts = read_info(out).parts
    emit({"checkpoint": str(out), "parts": parts}, json, f"{out}: {', '.join(parts)}", is_report=True)
