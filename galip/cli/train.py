"""`galip train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from galip.cli.config_options import options_of
from galip.cli.options import ConfigFile, Json, Resume
from galip.cli.training import run_training
from galip.train.config import GanConfig

__all__ = ["train"]

Preset = Annotated[
    str | None,
    typer.Option(
        help="Options to start from: quick (your own pictures, ten minutes on two CPU cores), icons, cub, "
        "coco, cc3m, cc12m, or table3-ROW for a row of the paper's table 3. --config and the command line "
        "override it.",
        show_default=False,
    ),
]


@options_of(GanConfig)
def train(
    options: dict[str, Any],
    preset: Preset = None,
    config: ConfigFile = None,
    resume: Resume = False,
    json: Json = False,
) -> int:
    """Train GALIP with the paper's losses.

    On several GPUs: torchrun --nproc-per-node GPUS -m galip train ...

    Ctrl-C, SIGTERM or SIGHUP saves the state and stops with exit code 130; --resume continues exactly there.
    """
    from galip.train.options import resolve

    resolved = resolve(GanConfig, options, preset, config, resume=resume)
    from galip.early_checks import check_training

    check_training(resolved, resume)
    from galip.train.gan import train

    return run_training("train", train, resolved, resume, json, preset)
