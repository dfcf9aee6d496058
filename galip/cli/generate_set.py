"""`galip generate-set`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from galip_runtime.sets.options import HELP

from galip.cli.options import Bundle, Device, Json, Precision, Truncation
from galip.cli.output import emit

__all__ = ["generate_set"]


def generate_set(
    prompts: Annotated[Path, typer.Argument(help=HELP["prompts"], show_default=False)],
    out: Annotated[Path, typer.Option(help=HELP["out"], show_default=False)],
    count: Annotated[int, typer.Option(help=HELP["count"])] = 1,
    seeds: Annotated[str | None, typer.Option(metavar="LIST", help=HELP["seeds"], show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help=HELP["seed"], show_default=False)] = None,
    truncation: Truncation = None,
    bundle: Bundle = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(help=HELP["threads"], show_default=False)] = None,
    shard_size: Annotated[int, typer.Option(help=HELP["shard_size"])] = 1000,
    format: Annotated[str, typer.Option(help=HELP["format"])] = "png",
    layout: Annotated[str, typer.Option(help=HELP["layout"])] = "webdataset",
    workers: Annotated[int | None, typer.Option(help=HELP["workers"], show_default=False)] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=HELP["ray"], show_default=False)] = None,
    json: Json = False,
) -> None:
    """Generate many pictures, from a file of prompts into shards, on this machine or a Ray cluster.

    The same command goes on where it was stopped. Ends with exit code 3 if pictures are not finite.
    """
    options = locals()
    from galip_runtime.sets import SetOptions, parse_seeds
    from galip_runtime.sets.generate import generate_set
    from galip_runtime.sets.progress import SetProgress
    from galip_runtime.sets.report import summary_line

    values = {name: value for name, value in options.items() if name != "json"}
    result = generate_set(SetOptions(**{**values, "seeds": parse_seeds(seeds)}), SetProgress())
    summary = result.summary()
    emit(summary, json, summary_line(summary), is_report=True)
    result.check()
