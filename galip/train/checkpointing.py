"""Save and resume of GALIP's training: the state, the model with averaged weights, and a grid of samples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from galip_runtime.errors import UsageError
from torch import Tensor

from galip.checkpoint import save_galip
from galip.train.fabric import gather_objects
from galip.train.run import Run
from galip.train.samples import SampleGrids
from galip.train.trainer import Trainer

__all__ = ["MODEL", "checkpoint_note", "load_state", "save", "state_of"]

MODEL = "model.safetensors"
"""The newest model in a run's folder."""


def state_of(trainer: Trainer, step: int) -> dict[str, Any]:
    """Return everything needed to continue exactly after `step` steps. Every process calls this.

    Random numbers need no place in it: they depend on seed and step alone.
    """
    return {
        "step": step,
        "generator": _trainable(trainer.model.generator),
        "discriminator": trainer.model.discriminator.state_dict(),
        "heads": trainer.heads.state_dict() if trainer.heads else {},
        "ema": trainer.ema.values,
        "optimizer_g": trainer.optimizer_g.state_dict(),
        "optimizer_d": trainer.optimizer_d.state_dict(),
        "scaler": trainer.scaler.state_dict() if trainer.scaler else {},
        "best": trainer.best,
        "judged": trainer.validated_step,
        "loader": gather_objects(trainer.fabric, trainer.loader.state()),
        "hinge": [float(value) for value in trainer.collapse.hinge],
        "spread": [float(value) for value in trainer.collapse.spread],
    }


def load_state(trainer: Trainer, state: dict[str, Any]) -> int:
    """Restore `trainer` from a saved state; returns the number of steps done.

    Raises `UsageError` if the state has projected heads and the trainer has none, or the other way round.
    """
    heads = state.get("heads", {})
    if bool(heads) != bool(trainer.heads):
        begun = "with" if heads else "without"
        raise UsageError(
            f"the run began {begun} projected heads; projected_weight can be changed, but not from or to 0"
        )
    names = _trainable(trainer.model.generator).keys()
    if names != state["generator"].keys():
        raise KeyError(f"generator has {sorted(names ^ state['generator'].keys())[:3]} or not")
    device = trainer.fabric.device
    trainer.model.generator.load_state_dict(state["generator"], strict=False)
    trainer.model.discriminator.load_state_dict(state["discriminator"])
    if trainer.heads:
        trainer.heads.load_state_dict(heads)
    trainer.ema.values = {name: value.to(device) for name, value in state["ema"].items()}
    trainer.optimizer_g.load_state_dict(state["optimizer_g"])
    trainer.optimizer_d.load_state_dict(state["optimizer_d"])
    if trainer.scaler and state["scaler"]:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.best, trainer.validated_step = dict(state["best"]), int(state["judged"])
    loaders = state["loader"]
    trainer.loader.restore(loaders[trainer.fabric.global_rank % len(loaders)], int(state["step"]))
    trainer.collapse.restore(state["hinge"], state["spread"], device)
    return int(state["step"])


def checkpoint_note(trainer: Trainer, step: int) -> dict[str, Any]:
    """Return what a checkpoint says of its training."""
    config = trainer.config
    return {"train": asdict(config), "step": step, "pictures_seen": step * config.batch_size}


def save(run: Run, trainer: Trainer, samples: SampleGrids, step: int, stopping: bool) -> None:
    """Save the model and a grid of samples, both with the averaged generator, and the state for resume.

    The state comes after the model, so that a save that is cut short is done again when the run is resumed.
    But it comes first if the run is `stopping`, as whoever stops it may not wait. The grid comes after both:
    nothing depends on it, so its failure is reported but doesn't end the run.
    """
    trainer.collapse.check()
    if stopping:
        run.save_state(state_of(trainer, step))
    else:
        run.check_finite(state_of(trainer, step))
    if trainer.fabric.is_global_zero:
        with trainer.ema.applied(trainer.model.generator):
            note = checkpoint_note(trainer, step)
            save_galip(run.out / MODEL, trainer.model, note=note)
    if not stopping:
        run.save_state(state_of(trainer, step))
    if trainer.fabric.is_global_zero:
        samples.save(step)


def _trainable(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
