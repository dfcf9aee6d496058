"""`galip data …`: training data."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from galip_runtime.errors import UsageError

from galip.cli.common import Json, Progress, emit
from galip.data.layouts import LAYOUTS

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Build and check training data."""


@app.command("icons")
def icons(
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    size: Annotated[int, typer.Option(help="Side of the pictures, pixels.")] = 64,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with packages fetched by npm pack already.", show_default=False),
    ] = None,
    skin_tones: Annotated[bool, typer.Option(help="With or without the skin tone variants.")] = True,
    exclude_group: Annotated[
        list[str] | None, typer.Option(help="Leave out a group, such as flags.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """About 19,000 captioned icons in seven styles.

    Fetches seven icon sets with npm pack, draws them and writes WebDataset shards.
    """
    _find_recipe()
    from icons.build import build_icons

    with Progress() as progress:
        summary = build_icons(
            out,
            size=size,
            source=source,
            skin_tones=skin_tones,
            exclude_groups=exclude_group or (),
            progress=progress,
        )
    lines = [
        f"{summary.pictures} pictures of {summary.things} things in {out}"
        + ("" if summary.built else " (already built)")
    ]
    lines += [f"  {style}: {count}" for style, count in summary.per_style.items()]
    lines += [f"  {split}: {count}" for split, count in summary.per_split.items()]
    emit({"out": str(out), **asdict(summary)}, json, *lines, is_report=True)


def _find_recipe() -> None:
    """Make `recipes/icons` of the clone that this package is in importable. Raises `UsageError` elsewhere."""
    recipes = Path(__file__).parents[2] / "recipes"
    if not (recipes / "icons").is_dir():
        raise UsageError(
            "the icons are drawn by a recipe that is in galip's repository and not in its packages: clone "
            "it, run make setup there, then .venv/bin/galip data icons"
        )
    if str(recipes) not in sys.path:
        sys.path.append(str(recipes))


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(help="Folder of captioned pictures.")],
    layout: Annotated[
        str, typer.Option(help=f"How the data is laid out: auto, {', '.join(LAYOUTS)}.")
    ] = "auto",
    split: Annotated[str, typer.Option(help="Which part of it.")] = "train",
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a PNG of some pictures with their captions.", show_default=False),
    ] = None,
    decode: Annotated[
        bool, typer.Option(help="Decode every picture, or only read its head, which finds less.")
    ] = True,
    json: Json = False,
) -> None:
    """What a data set holds, and which pictures are broken.

    Ends with exit code 3 where more are broken than training allows.
    """
    from galip_runtime.errors import QualityGateFailed

    from galip.data.check import check_data
    from galip.data.contact_sheet import SAMPLES, check_sheet_path, contact_sheet, save_sheet
    from galip.data.decode import MAX_BROKEN

    if sheet:
        check_sheet_path(sheet)
    with Progress() as progress:
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
    written = str(sheet) if sheet and samples else None
    lines = [*report.lines(), *([f"sheet: {written}"] if written else [])]
    emit({**asdict(report), "sheet": written}, json, *lines)
    if report.broken_share > MAX_BROKEN:
        raise QualityGateFailed(
            f"{report.broken} of {report.pictures} pictures are broken, {report.broken_share:.1%}; training "
            f"stops above {MAX_BROKEN:.0%}. Repair or remove them, or train with --max-broken."
        )
