"""`galip train-clip` and `galip train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime.errors import UsageError

from galip.cli.common import Json, emit
from galip.cli.from_config import options_of
from galip.train.config import ContrastiveConfig, GanConfig

__all__ = ["train", "train_clip"]

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, exactly where it stopped.")
]


@options_of(ContrastiveConfig)
def train_clip(config: ContrastiveConfig, resume: Resume = False, json: Json = False) -> int:
    """Train CLIP's two towers from scratch.

    Ctrl-C saves the state and stops; --resume goes on exactly.
    """
    from galip.train.contrastive import train_clip

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train-clip runs in one process; start it without torchrun")
    return _run(train_clip, config, resume, json)


@options_of(GanConfig)
def train(config: GanConfig, resume: Resume = False, json: Json = False) -> int:
    """Train GALIP with the paper's losses.

    Adam on both networks, a moving average of the generator, one device.

    Ctrl-C saves the state and stops; --resume goes on exactly.
    """
    from galip.train.gan import train

    return _run(train, config, resume, json)


def _run(function: Callable[..., Path], config: Any, resume: bool, as_json: bool) -> int:
    from galip.train.run import STATE_FILE, TrainingStopped

    if resume and not Path(config.out, STATE_FILE).exists():
        raise UsageError(
            f"{config.out} holds no run to go on with ({STATE_FILE} is missing); check --out, or begin one "
            "without --resume"
        )
    try:
        path = function(config, resume=resume, echo=lambda line: print(line, file=sys.stderr, flush=True))
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return 130
    emit({"checkpoint": str(path)}, as_json, str(path))
    return 0
