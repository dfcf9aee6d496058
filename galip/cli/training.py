"""Running a training for `train` and `train-clip`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galip_runtime import console

from galip.cli.output import emit

__all__ = ["run_training"]


def run_training(function: Callable[..., Path], config: Any, resume: bool, as_json: bool) -> int:
    """Train with `function(config)`, print the checkpoint's path and return the exit code."""
    from galip.train.stop_signals import TrainingStopped

    try:
        path = function(config, resume=resume, echo=console.message)
    except TrainingStopped as stop:
        console.message(stop)
        return 130
    if os.environ.get("RANK", "0") == "0":  # of several processes only the first prints
        emit({"checkpoint": str(path)}, as_json, str(path), is_report=True)
    return 0
