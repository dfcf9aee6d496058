"""`galip train-clip`."""

from __future__ import annotations

import os
from typing import Any

from galip_runtime.errors import UsageError

from galip.cli.config_options import options_of
from galip.cli.options import ConfigFile, Json, Resume
from galip.cli.training import run_training
from galip.train.config import ContrastiveConfig

__all__ = ["train_clip"]


@options_of(ContrastiveConfig)
def train_clip(
    options: dict[str, Any], config: ConfigFile = None, resume: Resume = False, json: Json = False
) -> int:
    """Train CLIP's two towers from scratch.

    Ctrl-C saves the state and stops; --resume continues exactly there.
    """
    from galip.train.options import resolve

    resolved = resolve(ContrastiveConfig, options, file=config, resume=resume)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("train-clip runs in one process; start it without torchrun")
    from galip.early_checks import check_contrastive

    check_contrastive(resolved, resume)
    from galip.train.contrastive import train_clip

    return run_training("train-clip", train_clip, resolved, resume, json)
