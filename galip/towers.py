"""CLIP's two towers from our checkpoints, files of OpenAI, transformers or open_clip, or a tag."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from galip.assets import checkpoint_path
from galip.checkpoint import is_galip_checkpoint, load_clip, load_galip, load_weights, read_info
from galip.clip import ImageTower, TextTower, build_clip
from galip.clip_files import clip_state_dict
from galip.config import ClipConfig, GalipConfig
from galip.early_checks import check_same_towers

__all__ = ["Towers", "load_towers"]


@dataclass(frozen=True)
class Towers:
    """CLIP's text and image tower, and their dimensions."""

    text: TextTower
    image: ImageTower
    config: ClipConfig
    logit_scale: Tensor | None = None
    """Logarithm of the factor that similarities are multiplied by, (); a GALIP has none."""


def load_towers(source: str, required: ClipConfig | None = None) -> Towers:
    """Load CLIP from one of our checkpoints, `default` being the shipped one, or from what `clip_state_dict`
    takes.

    `required`: the dimensions it must have. Without it our checkpoints have their own and other sources
    ViT-B/32's. Pictures in [-1, 1] become CLIP's input as CLIP was trained, except with the tower of a GALIP
    that has the released pixel range, which keeps it. Raises `UsageError` for other dimensions, `FileRefused`
    for a broken file.
    """
    path = checkpoint_path(source)
    if not is_galip_checkpoint(path):
        config = required or ClipConfig()
        clip = build_clip(config)
        weights = clip_state_dict(source)
        load_weights(clip, {"logit_scale": clip.logit_scale.detach(), **weights}, source)
        return Towers(TextTower(clip), ImageTower(clip.visual, config, "clip"), config, clip.logit_scale)
    info = read_info(path)
    config = info.config.clip if isinstance(info.config, GalipConfig) else info.config
    if required is not None:
        check_same_towers(source, config, required)
    if info.kind == "galip":
        model = load_galip(path, needs=("text", "image"))
        return Towers(model.text, model.image, config)
    clip, _ = load_clip(path)
    return Towers(TextTower(clip), ImageTower(clip.visual, config, "clip"), config, clip.logit_scale)
