"""Prompts for measurements: short and long ones, of icons and of photographs."""

import itertools

__all__ = ["PROMPTS", "prompts"]

_THINGS = (
    "a red apple", "a dog", "a fish", "a rose", "a house", "an automobile", "a key", "fire", "a wine glass",
    "a Christmas tree", "a star", "an open book", "a pizza", "a bear",
)  # fmt: skip
_STYLES = ("3D style", "noto style", "firefox style")
_SCENES = (
    "A bowl of fruit on a wooden table next to a window.",
    "this bird has a red head, a short pointed beak and grey wings",
    "A man riding a wave on top of a surfboard.",
    "Several zebras are standing together behind a fence in tall, dry grass on a cloudy day.",
    "a kitchen with white cabinets",
    "A double decker bus drives down a busy city street while people wait to cross at the lights.",
    "mountains",
    "a small yellow flower with many thin petals",
    "A train travelling through a snowy landscape under a pale winter sun, seen from far away.",
    "two cats asleep on a sofa",
)

PROMPTS: tuple[str, ...] = (
    *(f"{thing}, {style}" for style in _STYLES for thing in _THINGS),
    *_SCENES,
)
"""Used in this order, over and over."""


def prompts(count: int) -> list[str]:
    """Return `count` prompts: `PROMPTS` from the first on, repeated."""
    return list(itertools.islice(itertools.cycle(PROMPTS), count))
