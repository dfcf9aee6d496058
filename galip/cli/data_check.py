"""`galip data check`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from galip.cli.options import Json
from galip.cli.output import ProgressBar, emit
from galip.data.layouts import LAYOUTS

__all__ = ["check"]


def check(
    path: Annotated[Path, typer.Argument(help="Folder of captioned pictures.")],
    layout: Annotated[str, typer.Option(help=f"Layout of the data: auto, {', '.join(LAYOUTS)}.")] = "auto",
    split: Annotated[str, typer.Option(help="Split to check.")] = "train",
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a PNG of some pictures with their captions.", show_default=False),
    ] = None,
    decode: Annotated[
        bool, typer.Option(help="Decode every picture. Without it only headers are read, which finds less.")
    ] = True,
    json: Json = False,
) -> None:
    """Report what a data set holds and which pictures are broken.

    Ends with exit code 3 if more pictures are broken than training allows.
    """
    from galip_runtime.errors import QualityGateFailed

    from galip.data.check import check_data
    from galip.data.contact_sheet import SAMPLES, check_sheet_path, contact_sheet, save_sheet
    from galip.data.decode import MAX_BROKEN

    if sheet:
        check_sheet_path(sheet)
    with ProgressBar() as progress:
        report, samples = check_data(
            path,
            layout=layout,
            split=split,
            decode=decode,
            samples=SAMPLES if sheet else 0,
            progress=progress,
        )
    if sheet and samples:
        save_sheet(contact_sheet(samples), sheet)
    sheet_file = str(sheet) if sheet and samples else None
    lines = [*report.lines(), *([f"sheet: {sheet_file}"] if sheet_file else [])]
    emit({**asdict(report), "sheet": sheet_file}, json, *lines)
    if report.broken_share > MAX_BROKEN:
        raise QualityGateFailed(
            f"{report.broken} of {report.pictures} pictures are broken, {report.broken_share:.1%}; training "
            f"stops above {MAX_BROKEN:.0%}. Repair or remove them, or train with --max-broken."
        )
