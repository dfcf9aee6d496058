"""Running a training for `train` and `train-clip`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galip_runtime import console
from galip_runtime.errors import UsageError

from galip.cli.output import emit

__all__ = ["run_training"]


def run_training(function: Callable[..., Path], config: Any, resume: bool, as_json: bool) -> int:
    """Train with `function(config)`, print the checkpoint's path and return the exit code."""
    from galip.train.states import newest_state
    from galip.train.stop_signals import TrainingStopped

    if resume and newest_state(Path(config.out)) is None:
        raise UsageError(
            f"{config.out} holds no run to continue (no state was saved); check --out, or start a new run "
            "without --resume"
        )
    try:
        path = function(config, resume=resume, echo=console.message)
    except TrainingStopped as stop:
        console.message(stop)
        return 130
    if os.environ.get("RANK", "0") == "0":  # of several processes only the first prints
        emit({"checkpoint": str(path)}, as_json, str(path), is_report=True)
    return 0
