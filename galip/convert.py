"""Conversion of a released GALIP checkpoint (`.pth`) and CLIP's weights to one of our checkpoints.

The released layout is `{"model": {"netG", "netD", "netC"}}`, optionally with optimizers and epoch. Keys may
have the prefix `module.` (saved under DDP), and CLIP tensors may be fp16. Files are always unpickled with
`weights_only=True`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from galip_runtime.bundle.manifest import sha256_file
from galip_runtime.errors import FileRefused
from torch import Tensor

from galip.checkpoint import PARTS, blank_galip, load_weights, save_galip
from galip.clip_files import clip_state_dict
from galip.config import GalipConfig
from galip.early_checks import check_conversion
from galip.model import Galip
from galip.presets import preset
from galip.state_dicts import read_state_dict, tensors_of

__all__ = ["clip_state_dict", "convert_released", "read_state_dict"]

_MLP = [
    (r"fc_(gamma|beta)\.linear1\.", r"\1.0."),
    (r"fc_(gamma|beta)\.linear2\.", r"\1.2."),
    (r"\bfuse([12])\.", r"df\1."),
]
_RULES: dict[str, list[tuple[str, str]]] = {
    "netG": [
        *_MLP,
        (r"^fc_code\.", "generator.bridge.fc."),
        (r"^mapping\.FBlocks\.", "generator.bridge.fusion."),
        (r"^mapping\.conv_fuse\.", "generator.bridge.out."),
        (r"^mapping\.fc_prompt\.", "generator.prompt."),
        (r"^mapping\.CLIP_ViT\.transformer\.", "generator.clip_vit."),
        (r"^mapping\.CLIP_ViT\.", "generator.clip_vit."),
        (r"^mapping\.conv\.", "generator.concept."),
        (r"^GBlocks\.(\d+)\.c([12])\.", r"generator.blocks.\1.conv\2."),
        (r"^GBlocks\.(\d+)\.c_sc\.", r"generator.blocks.\1.shortcut."),
        (r"^GBlocks\.", "generator.blocks."),
        (r"^to_rgb\.1\.", "generator.to_rgb."),
    ],
    "netD": [
        (r"\bconv_r\.", "convs."),
        (r"\bconv_s\.", "shortcut."),
        (r"^DBlocks\.", "discriminator.mate.extraction."),
        (r"^main\.", "discriminator.mate.main."),
    ],
    "netC": [(r"^joint_conv\.", "discriminator.assessor.convs.")],
}
"""Regular expressions from released tensor names to ours, applied in order."""

_UNUSED = re.compile(
    r"generator\.clip_vit\.conv1\.weight|discriminator\.mate\.extraction\.\d+\.shortcut\.(weight|bias)"
)
"""Tensors in the released files that the released code never uses."""


def convert_released(
    source: Path,
    out: Path,
    *,
    clip: str | None = None,
    allow_missing_text: bool = False,
    config: GalipConfig | None = None,
) -> GalipConfig:
    """Convert the released checkpoint `source` to `out` (.safetensors) and return its config.

    `clip`: as for `clip_state_dict`. Without it, `allow_missing_text` confirms that the result has no text
    encoder.

    Raises `UsageError` if neither is given, `FileRefused` if a file is broken, would run code, or has
    unknown, missing or misshapen tensors.
    """
    check_conversion(source, clip, out, allow_missing_text)
    config = config or preset("released")
    tensors = _galip_tensors(source)
    parts = ("generator", "discriminator") if clip is None else PARTS
    model = blank_galip(config, parts)
    if clip is not None:
        tensors |= _clip_tensors(clip)
    load_weights(model, tensors, str(source) if clip is None else f"{source} with {clip}")
    if clip is not None:
        _check_same_clip(model, source, clip)
    save_galip(
        out,
        model,
        parts=parts,
        note={"converted_from": source.name, "sha256": sha256_file(source), "clip": clip and Path(clip).name},
    )
    return config


def _galip_tensors(source: Path) -> dict[str, Tensor]:
    """Return the tensors of a released file, as stored, under our names."""
    loaded = read_state_dict(source)
    modules = loaded.get("model")
    if not isinstance(modules, Mapping) or not {"netG", "netD", "netC"} <= modules.keys():
        raise FileRefused(
            f"{source} is not a released GALIP checkpoint: expected model.netG, model.netD and model.netC, "
            f"got the keys {sorted(key for key in loaded if isinstance(key, str))[:8]!r:.400}"
        )
    tensors = {}
    for module, rules in _RULES.items():
        for released, tensor in tensors_of(modules[module], f"{source}, {module}").items():
            name = released.removeprefix("module.")
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            if not _UNUSED.fullmatch(name):
                tensors[name] = tensor
    return tensors


def _clip_tensors(clip: str) -> dict[str, Tensor]:
    """Return the tensors of the text and image towers under our names."""
    return {
        "image." + name.removeprefix("visual.") if name.startswith("visual.") else "text." + name: tensor
        for name, tensor in clip_state_dict(clip).items()
    }


def _check_same_clip(model: Galip, source: Path, clip: str) -> None:
    """Raise `FileRefused` unless `clip` is the CLIP in the generator.

    The generator was trained with one CLIP; another's sentence vectors would mean nothing to it.
    """
    tower = model.image.state_dict()
    for name, tensor in model.generator.clip_vit.state_dict().items():
        twin = tower[name if name in tower else f"transformer.{name}"]
        if not torch.allclose(tensor, twin, rtol=2e-3, atol=1e-3):  # fp16 storage rounds to 5e-4 relative
            raise FileRefused(
                f"{clip} is not the CLIP that {source} was trained with: {name} differs by up to "
                f"{(tensor - twin).abs().max():.3g}; released GALIP uses OpenAI's ViT-B/32"
            )
