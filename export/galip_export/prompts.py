"""Prompts as people write them: one set for calibration, another for the parity gate.

Icons in the styles that the shipped model knows; birds and scenes as in the data sets of the GALIP paper.
"""

from __future__ import annotations

from galip.assets import STYLES

__all__ = ["CALIBRATION_PROMPTS", "GATE_PROMPTS"]

_ICONS = (
    "a red apple", "a green apple", "a rose", "a tulip", "a sunflower", "a maple leaf", "an evergreen tree",
    "a dog", "a cat face", "a fish", "a whale", "an owl", "a bear", "a rabbit face", "a turtle",
    "a butterfly", "a house", "a castle", "a church", "a bus", "an automobile", "a bicycle", "a rocket",
    "a sailboat", "a key", "a hammer", "a light bulb", "a wrapped gift", "a guitar", "a soccer ball",
    "a pizza", "a birthday cake", "a wine glass", "a hot beverage", "a star", "a full moon", "a rainbow",
    "fire", "a Christmas tree", "an open book",
)  # fmt: skip
_BIRDS = ("red", "blue", "yellow", "grey", "black", "white", "brown", "green")
_FEATURES = (
    "a short pointed beak and {} wings", "a {} head and a long tail", "a {} belly and thin legs",
)  # fmt: skip
_ACTORS = (
    "A man", "A woman", "Two children", "A dog", "A group of people", "A cat", "Several zebras",
    "A brown horse",
)  # fmt: skip
_SCENES = (
    "sitting on a bench in a park.", "next to a window in a kitchen.", "standing on a snowy hill.",
    "on a sandy beach at sunset, seen from far away.", "walking down a busy city street.",
    "in a field of tall, dry grass on a cloudy day.", "beside a wooden table with a bowl of fruit.",
    "near a train at a station.", "under a large red umbrella.",
)  # fmt: skip

_ALL = (
    *(f"{icon}, {style}" for icon in _ICONS for style in STYLES),
    *(
        f"this bird is {colour} with {feature.format(other)}"
        for colour in _BIRDS
        for other in _BIRDS
        if other != colour
        for feature in _FEATURES
    ),
    *(f"{actor} {scene}" for actor in _ACTORS for scene in _SCENES),
)


def _spread(prompts: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return `count` of the prompts, evenly from first to last."""
    return tuple(prompts[index * len(prompts) // count] for index in range(count))


CALIBRATION_PROMPTS = _spread(_ALL[0::2], 256)
"""none of them is among `GATE_PROMPTS`"""

GATE_PROMPTS = _spread(_ALL[1::2], 256)
"""the pictures that the gate compares, the n-th with seed n"""
