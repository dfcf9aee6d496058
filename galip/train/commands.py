"""The command lines that a training prints: its own options, how to resume it, and what to do with its model.

They can be pasted into a POSIX shell.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from galip.assets import checkpoint_path
from galip.checkpoint_info import is_galip_checkpoint, read_info
from galip.train.config import ContrastiveConfig, GanConfig

__all__ = ["after_train", "after_train_clip", "changed_options", "resume_command"]

SHOWN_PROMPTS = 2
"""Prompts in the command that looks at the pictures."""


def changed_options(config: Any) -> str:
    """Return the options of the dataclass `config` that differ from their defaults, as on a command line."""
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            words += _option(field.name, value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, tuple) else (value,)
    return [word for item in values for word in (f"--{flag}", str(item))]


def resume_command(
    command: str, out: str | Path, steps: int | None = None, environment: Mapping[str, str] = os.environ
) -> str:
    """Return the command line that resumes the run of `galip COMMAND` in `out`, with torchrun if that
    started it. `steps`: how many to make it, if not as many as before.
    """
    options = ["--resume", "--out", str(out), *([] if steps is None else ["--steps", str(steps)])]
    return shlex.join([*_program(environment), command, *options])


def _program(environment: Mapping[str, str]) -> list[str]:
    """Return how `galip` was started, by the variables that torchrun sets."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return ["galip"]
    local = int(environment["LOCAL_WORLD_SIZE"])
    nodes = int(environment["WORLD_SIZE"]) // local
    several = [f"--nnodes={nodes}", "--rdzv-backend=c10d", "--rdzv-endpoint=HOST:PORT"] if nodes > 1 else []
    return ["torchrun", *several, f"--nproc-per-node={local}", "-m", "galip"]


def after_train(config: GanConfig, model: Path, prompts: Iterable[str]) -> list[str]:
    """Return lines of what to do with the trained `model`; `prompts`: some that it knows.

    A run with a warm-up gets better by longer phases, not by more steps at its end: no line prolongs it.
    """
    out = Path(config.out)
    shown = [" ".join(prompt.split()) for prompt in prompts if not prompt.startswith("-")][:SHOWN_PROMPTS]
    shown = shown or ["PROMPT"]
    against, layout = config.evaluate_against or config.data, config.layout
    others = ["--layout", layout] if layout != "auto" and not config.evaluate_against else []
    others += [] if config.evaluate_split == "train" else ["--split", config.evaluate_split]
    others += _option("exclude", config.exclude)
    grid = ["galip", "sample-grid", *shown, "--model", str(model), "--out", str(out / "grid.png")]
    commands = {
        "look at its pictures": shlex.join(grid),
        "evaluate it": shlex.join(["galip", "evaluate", str(model), "--against", against, *others]),
        "export it": shlex.join(["galip", "export", str(model), "--out", str(out / "bundle")]),
    }
    if not config.warmup_steps:
        commands["train it longer"] = resume_command("train", out, 2 * config.steps)
    return _aligned(commands)


def after_train_clip(config: ContrastiveConfig, clip: Path) -> list[str]:
    """Return lines of what to do with the trained towers in `clip`."""
    out = Path(config.out)
    words = ["galip", "train", "--data", config.data, "--clip", str(clip), "--model", config.model]
    others = {name: getattr(config, name) for name in ("layout", "crop", "max_broken", "exclude")}
    for name, value in others.items():
        words += [] if value == getattr(ContrastiveConfig, name) else _option(name, value)
    if config.lock_image and config.whiten and _is_galip(config.init):
        words += ["--init", config.init]  # its generator can go on with these towers
    return _aligned(
        {
            "train GALIP with them": shlex.join([*words, "--out", f"{out}-galip"]),
            "train them longer": resume_command("train-clip", out, 2 * config.steps),
        }
    )


def _is_galip(source: str) -> bool:
    path = checkpoint_path(source)
    return is_galip_checkpoint(path) and read_info(path).kind == "galip"


def _aligned(commands: Mapping[str, str]) -> list[str]:
    width = max(map(len, commands)) + 1
    return [f"  {f'{what}:':{width}} {command}" for what, command in commands.items()]
