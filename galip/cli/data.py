"""`galip data …`: training data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from galip.cli.common import Json, Progress, emit

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Build training data."""


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
    from galip.data.icons import build_icons

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
    emit({"out": str(out), **asdict(summary)}, json, "\n".join(lines))
