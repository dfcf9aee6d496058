"""The scalars of a training in words: one table for the screen and for TensorBoard's groups.

`log.jsonl` has them under their short names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Label", "in_words", "label_of"]


class Label(NamedTuple):
    """What a scalar belongs to, and what it is there."""

    group: str
    words: str


_LABELS = {
    "d_real": Label("discriminator", "real"),
    "d_mis": Label("discriminator", "mismatched"),
    "d_fake": Label("discriminator", "fake"),
    "magp": Label("discriminator", "penalty"),
    "p_real": Label("projected heads", "real"),
    "p_mis": Label("projected heads", "mismatched"),
    "p_fake": Label("projected heads", "fake"),
    "g_adv": Label("generator", "adversarial"),
    "clip_sim": Label("generator", "CLIP similarity"),
    "g_proj": Label("generator", "projected adversarial"),
    "excess": Label("generator", "outside [-1, 1]"),
    "pixel": Label("generator", "pixel distance"),
    "feature": Label("generator", "CLIP feature distance"),
    "perceptual": Label("generator", "perceptual distance"),
    "loss": Label("towers", "contrastive loss"),
    "logit_scale": Label("towers", "logit scale"),
    "teacher": Label("towers", "teacher's loss"),
    "fid": Label("evaluation", "FID"),
    "clip_score": Label("evaluation", "CLIP score"),
    "pictures_per_second": Label("speed", "pictures/s"),
}


def label_of(name: str) -> Label:
    """Return the label of the scalar `name`; one that the table lacks is in no group and keeps its name."""
    return _LABELS.get(name, Label("", name))


def in_words(scalars: Mapping[str, float], spec: str = ".3f") -> str:
    """Return scalars by group: `discriminator: real 0.981, fake 0.970 · generator: adversarial 0.302`.

    `spec`: how numbers are formatted.
    """
    groups: dict[str, list[str]] = {}
    for name, value in scalars.items():
        label = label_of(name)
        groups.setdefault(label.group, []).append(f"{label.words} {value:{spec}}")
    return " · ".join(
        f"{group}: {', '.join(members)}" if group else ", ".join(members) for group, members in groups.items()
    )
