"""Model configs by name: the released and the shipped model, a tiny one for tests, the paper's Table 3."""

from __future__ import annotations

import dataclasses
from typing import Any

from galip_runtime.errors import UsageError

from galip.config import (
    ClipConfig,
    DiscriminatorConfig,
    GalipConfig,
    GeneratorConfig,
    ImageTowerConfig,
    TextTowerConfig,
)

__all__ = ["PRESETS", "TABLE3", "preset"]

_ICON_CLIP = ClipConfig(
    embed_dim=256,
    image=ImageTowerConfig(image_size=64, patch_size=8, width=192, layers=6, head_width=64),
    text=TextTowerConfig(context_length=32, merges=8_000, width=192, layers=4, heads=3),
)

_DEFAULT = GalipConfig(
    clip=_ICON_CLIP,
    generator=GeneratorConfig(
        noise_dim=32,
        clip_layers=3,
        prompt_layers=(1, 2),
        channels=(128, 128, 96, 48, 24, 16),
        sizes=(8, 16, 32, 64, 128),
    ),
    discriminator=DiscriminatorConfig(collect_layers=(0, 2, 4), channels=192, assessor_channels=128),
)

PRESETS: dict[str, GalipConfig] = {
    "released": GalipConfig(discriminator=DiscriminatorConfig(pixel_range="released")),
    "default": _DEFAULT,
    "default-64": dataclasses.replace(
        _DEFAULT,
        generator=dataclasses.replace(
            _DEFAULT.generator, channels=_DEFAULT.generator.channels[:-1], sizes=_DEFAULT.generator.sizes[:-1]
        ),
    ),
    "tiny": GalipConfig(
        clip=ClipConfig(
            embed_dim=16,
            image=ImageTowerConfig(image_size=28, patch_size=4, width=16, layers=3, head_width=8),
            text=TextTowerConfig(context_length=16, merges=64, width=16, layers=2, heads=2),
        ),
        generator=GeneratorConfig(
            noise_dim=8,
            bridge_channels=8,
            fusion_hidden=4,
            fusion_blocks=2,
            clip_layers=3,
            prompt_layers=(1,),
            channels=(16, 16, 12, 8),
            sizes=(8, 16, 28),
        ),
        discriminator=DiscriminatorConfig(collect_layers=(0, 1, 2), channels=16, assessor_channels=8),
    ),
}
"""`released`: the released checkpoints. `default`: the shipped icon model; `default-64`: the model it grew
from. `tiny`: for tests. `table3-ROW`: the rows of `TABLE3`."""

TABLE3: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "baseline": ({"use_clip": False}, {"features": "cnn", "collect_layers": (0,)}),
    "cd-cfe": ({"use_clip": False}, {}),
    "cd-ccm-csm": ({"use_clip": False}, {"features": "ccm-csm"}),
    "cd-cfe-bfp": ({"prompt_layers": ()}, {}),
    "galip": ({}, {}),
    "cfe-2": ({}, {"collect_layers": (1,)}),
    "cfe-5": ({}, {"collect_layers": (4,)}),
    "cfe-12": ({}, {"collect_layers": (11,)}),
    "cfe-2-5": ({}, {"collect_layers": (1, 4)}),
    "cfe-2-5-12": ({}, {"collect_layers": (1, 4, 11)}),
    "cfe-2-5-9": ({}, {}),
    "cfe-2-5-8-9": ({}, {"collect_layers": (1, 4, 7, 8)}),
    "pp-1-12": ({"prompt_layers": tuple(range(12))}, {}),
    "pp-1-9": ({}, {}),
    "pp-1-6": ({"prompt_layers": tuple(range(6))}, {}),
    "pp-1-3": ({"prompt_layers": tuple(range(3))}, {}),
}
"""The paper's Table 3: how the generator and the discriminator of each row differ from GALIP's. The paper
counts layers from 1; three rows are GALIP itself. For GALIP the released code puts prompts into blocks 2 to
9, which the paper calls 1st to 9th; the other prompt rows follow the paper literally. `cnn` and `ccm-csm` are
described in the papers it cites (DF-GAN, Projected GAN), not in the released code: they are our reading of
those."""

for _row, (_generator, _discriminator) in TABLE3.items():
    PRESETS[f"table3-{_row}"] = GalipConfig(
        generator=GeneratorConfig(**_generator),
        discriminator=DiscriminatorConfig(pixel_range="released", **_discriminator),
    )


def preset(name: str) -> GalipConfig:
    """Return the preset `name`. Raises `UsageError` listing all names if there is none."""
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[name]
