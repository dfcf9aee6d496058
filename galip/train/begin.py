"""What a run of `galip train` begins with: CLIP's towers, fresh weights or a checkpoint's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from galip_runtime.errors import UsageError

from galip.checkpoint import is_ours, load_clip, load_galip, load_weights, read_info
from galip.clip import ImageTower, TextTower, build_clip
from galip.config import ClipConfig, GalipConfig
from galip.convert import clip_state_dict
from galip.model import Galip
from galip.presets import preset
from galip.train.config import GanConfig

__all__ = ["fresh_model", "load_towers"]


def fresh_model(config: GanConfig) -> Galip:
    """The model of `config` on the CPU: random weights by its seed or those of `init`, and CLIP's towers.

    Raises `UsageError` for a shape that there isn't or that doesn't fit, `FileRefused` for a file that can't
    be used.
    """
    wanted = preset(config.model)
    text, image = load_towers(config.clip, wanted.clip)
    torch.manual_seed(config.seed)
    model = Galip(wanted)
    if config.init:
        _begin_with(model, Path(config.init))
    model.use_towers(text, image)
    return model


def load_towers(source: str, wanted: ClipConfig | None = None) -> tuple[TextTower, ImageTower]:
    """CLIP from one of our checkpoints, a state-dict file or an open_clip tag, in the shape of `wanted`.

    Without `wanted` our checkpoints have their own shape and other sources ViT-B/32's. Pictures in [-1, 1]
    become CLIP's input as CLIP was trained, but by a released-range GALIP's tower as that has it. Raises
    `UsageError` for another shape, `FileRefused` for a broken file.
    """
    if not is_ours(Path(source)):
        shape = wanted or ClipConfig()
        clip = build_clip(shape)
        weights = clip_state_dict(source)
        load_weights(clip, {"logit_scale": clip.logit_scale.detach(), **weights}, source)
        return TextTower(clip), ImageTower(clip.visual, shape, "clip")
    info = read_info(Path(source))
    found = info.config.clip if isinstance(info.config, GalipConfig) else info.config
    if wanted is not None and found != wanted:
        raise UsageError(f"{source} has towers {found}, the preset wants {wanted}; give those trained for it")
    if info.kind == "galip":
        model = load_galip(Path(source), needs=("text", "image"))
        return model.text, model.image
    clip, _ = load_clip(Path(source))
    return TextTower(clip), ImageTower(clip.visual, found, "clip")


def _begin_with(model: Galip, path: Path) -> None:
    """Take the generator of the checkpoint at `path`, and its discriminator if it has one, into `model`.

    Of a generator that ends at a smaller picture, `model` takes the blocks they share; the rest stays fresh.
    """
    other = load_galip(path)
    if other.config != model.config and not _grows_from(model.config, other.config):
        raise UsageError(
            f"{path} has another shape than the preset: {other.config}. It may differ only in having fewer "
            "blocks, for smaller pictures"
        )
    ours = model.generator.state_dict()
    shared = {
        name: value
        for name, value in other.generator.state_dict().items()
        if other.config == model.config or (name in ours and not name.startswith("to_rgb."))
    }
    model.generator.load_state_dict(ours | shared)
    if other.discriminator is not None:
        model.discriminator.load_state_dict(other.discriminator.state_dict())


def _grows_from(larger: GalipConfig, smaller: GalipConfig) -> bool:
    """Whether `smaller` is `larger` without its last blocks."""
    ends = smaller.generator
    cut = dataclasses.replace(
        larger.generator,
        channels=larger.generator.channels[: len(ends.channels)],
        sizes=larger.generator.sizes[: len(ends.sizes)],
    )
    return dataclasses.replace(larger, generator=cut) == smaller
