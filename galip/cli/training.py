"""Running a training for `train` and `train-clip`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galip_runtime import console

from galip.cli.output import emit

__all__ = ["run_training"]


def run_training(
    command: str,
    function: Callable[..., Path],
    config: Any,
    resume: bool,
    as_json: bool,
    preset: str | None = None,
) -> int:
    """Train with `function(config)`, print the checkpoint's path and return the exit code.

    `command`: the name of the command; `preset`: of the options, if one was given. Of several processes only
    the first prints.
    """
    from galip.train.commands import resume_command
    from galip.train.stop_signals import TrainingStopped

    is_first = os.environ.get("RANK", "0") == "0"
    if preset and is_first:
        console.message(f"preset: {preset}")
    try:
        path = function(config, resume=resume, echo=console.message)
    except TrainingStopped as stop:
        if is_first:
            console.message(stop, f"to go on: {resume_command(command, config.out)}")
        return 130
    if is_first:
        emit({"checkpoint": str(path)}, as_json, str(path), is_report=True)
    return 0
