"""`galip data icons`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from galip_runtime.errors import UsageError

from galip.cli.options import Json
from galip.cli.output import ProgressBar, emit

__all__ = ["icons"]


def icons(
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    size: Annotated[int, typer.Option(help="Side of the pictures, in pixels.")] = 64,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Folder of packages that npm pack has already fetched.", show_default=False
        ),
    ] = None,
    skin_tones: Annotated[bool, typer.Option(help="Include the skin tone variants.")] = True,
    exclude_group: Annotated[
        list[str] | None, typer.Option(help="Leave out a group, such as flags.", show_default=False)
    ] = None,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants",
            help="Also the commonest things in other colours, numbers and sizes, in pairs and on colours.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Build a data set of about 19,000 captioned icons in seven styles.

    Fetches seven icon sets with npm pack, renders them and writes WebDataset shards.
    """
    _add_recipes_to_path()
    from icons.build import build_icons
    from icons.variants import Variants

    with ProgressBar() as progress:
        summary = build_icons(
            out,
            size=size,
            source=source,
            skin_tones=skin_tones,
            exclude_groups=exclude_group or (),
            variants=Variants() if variants else None,
            progress=progress,
        )
    lines = [
        f"{summary.pictures} pictures of {summary.things} things in {out}"
        + ("" if summary.built else " (already built)")
    ]
    lines += [f"  {style}: {count}" for style, count in summary.per_style.items()]
    lines += [f"  {split}: {count}" for split, count in summary.per_split.items()]
    emit({"out": str(out), **asdict(summary)}, json, *lines, is_report=True)


def _add_recipes_to_path() -> None:
    """Make `recipes/icons` importable. Raises `UsageError` outside a clone of the repository."""
    recipes = Path(__file__).parents[2] / "recipes"
    if not (recipes / "icons").is_dir():
        raise UsageError(
            "the recipe that renders the icons is in galip's repository, not in its packages: clone the "
            "repository, run make setup there, then .venv/bin/galip data icons"
        )
    if str(recipes) not in sys.path:
        sys.path.append(str(recipes))
