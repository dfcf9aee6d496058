"""Initial weights of a `galip train` run: CLIP's towers, and random ones or a checkpoint's."""

from __future__ import annotations

from pathlib import Path

import torch

from galip.assets import checkpoint_path
from galip.checkpoint import load_galip
from galip.early_checks import check_initial
from galip.model import Galip
from galip.presets import preset
from galip.towers import load_towers
from galip.train.config import GanConfig

__all__ = ["create_model"]


def create_model(config: GanConfig) -> Galip:
    """Create the model of `config` on the CPU: random weights by its seed or those of `init`, and CLIP's
    towers.

    Raises `UsageError` for a preset that doesn't exist or dimensions that don't fit, `FileRefused` for a file
    that can't be used.
    """
    shape = preset(config.model)
    towers = load_towers(config.clip, shape.clip)
    torch.manual_seed(config.seed)
    model = Galip(shape)
    if config.init:
        _load_initial_weights(model, checkpoint_path(config.init))
    model.use_towers(towers.text, towers.image)
    return model


def _load_initial_weights(model: Galip, path: Path) -> None:
    """Load the generator of the checkpoint at `path`, and its discriminator if it has one, into `model`.

    From a generator of smaller or larger pictures `model` takes the blocks they share; the rest stays random.
    """
    check_initial(path, model.config)
    other = load_galip(path)
    ours = model.generator.state_dict()
    shared = {
        name: value
        for name, value in other.generator.state_dict().items()
        if other.config == model.config or (name in ours and not name.startswith("to_rgb."))
    }
    model.generator.load_state_dict(ours | shared)
    if other.discriminator is not None:
        model.discriminator.load_state_dict(other.discriminator.state_dict())
