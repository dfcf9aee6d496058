"""`galip train-clip` and `galip train`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime import console
from galip_runtime.errors import UsageError

from galip.cli.common import Json, emit
from galip.cli.from_config import options_of
from galip.train.config import ContrastiveConfig, GanConfig

__all__ = ["train", "train_clip"]

Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out, exactly where it stopped and with its options, but for those "
        "given.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="TOML file of options, named as here with _ for -; those given here come first.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Options to begin with: cub, coco, cc3m, cc12m, icons, or table3-ROW for a row of the paper's "
        "table 3; --config and what is given here come first.",
        show_default=False,
    ),
]


@options_of(ContrastiveConfig)
def train_clip(
    given: dict[str, Any], config: ConfigFile = None, resume: Resume = False, json: Json = False
) -> int:
    """Train CLIP's two towers from scratch.

    Ctrl-C saves the state and stops; --resume goes on exactly.
    """
    from galip.train.options import resolve

    resolved = resolve(ContrastiveConfig, given, file=config, resume=resume)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train-clip runs in one process; start it without torchrun")
    from galip.train.contrastive import train_clip

    return _run(train_clip, resolved, resume, json)


@options_of(GanConfig)
def train(
    given: dict[str, Any],
    preset: Preset = None,
    config: ConfigFile = None,
    resume: Resume = False,
    json: Json = False,
) -> int:
    """Train GALIP with the paper's losses.

    On several GPUs: torchrun --nproc-per-node GPUS -m galip train ...

    Ctrl-C, SIGTERM or SIGHUP saves the state and stops with exit code 130; --resume goes on exactly.
    """
    from galip.train.options import resolve

    resolved = resolve(GanConfig, given, preset, config, resume=resume)
    from galip.train.gan import train

    return _run(train, resolved, resume, json)


def _run(function: Callable[..., Path], config: Any, resume: bool, as_json: bool) -> int:
    from galip.train.states import newest_state
    from galip.train.stop_signals import TrainingStopped

    if resume and newest_state(Path(config.out)) is None:
        raise UsageError(
            f"{config.out} holds no run to go on with (no state is saved); check --out, or begin one without "
            "--resume"
        )
    try:
        path = function(config, resume=resume, echo=console.message)
    except TrainingStopped as stopped:
        console.message(stopped)
        return 130
    if os.environ.get("RANK", "0") == "0":  # of several processes the first speaks
        emit({"checkpoint": str(path)}, as_json, str(path), is_report=True)
    return 0
