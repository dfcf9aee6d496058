"""What counts as naming a picture right: the name without colour, or a name on the written list below."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from icons.colours import BOUNDS

__all__ = ["ENOUGH_STYLES", "SYNONYMS", "is_named", "named_things"]

ENOUGH_STYLES = 3
"""A thing counts as named if that many of its styles are."""

SYNONYMS = {
    "a dog": ("puppy",),
    "a cat": ("kitten",),
    "a fish": ("tropical fish",),
    "a chicken": ("hen", "rooster"),
    "a white flower": ("blossom", "cherry blossom", "daisy"),
    "a bear": ("teddy bear",),
    "a horse": ("pony",),
    "a birthday cake": ("cake",),
    "a hot dog": ("hotdog", "sausage in a bun"),
    "a beer mug": ("beer", "mug of beer", "glass of beer"),
    "a wine glass": ("wine", "glass of wine"),
    "a chocolate bar": ("chocolate", "bar of chocolate"),
    "a cheese wedge": ("cheese", "wedge of cheese", "piece of cheese", "swiss cheese"),
    "a pizza": ("pizza slice", "slice of pizza"),
    "cooked rice": ("rice", "bowl of rice", "rice bowl"),
    "a ship": ("boat", "cruise ship", "ocean liner"),
    "a house": ("home",),
    "a school": ("school building",),
    "a national park": ("park",),
    "an automobile": ("car",),
    "a car": ("automobile",),
    "fire": ("flame", "flames"),
    "an office building": ("building", "office", "skyscraper", "tower block"),
    "a sun": ("sun with rays",),
    "an open book": ("book",),
    "a calendar": ("calendar page",),
    "a t-shirt": ("shirt", "tshirt", "tee shirt"),
    "a ring": ("diamond ring", "engagement ring"),
    "a party popper": ("confetti", "confetti popper", "confetti cone"),
    "an american football": ("football", "rugby ball"),
    "admission tickets": ("ticket", "tickets", "admission ticket"),
    "a Christmas tree": ("decorated tree",),
    "a thinking face": ("thinking", "pondering face"),
    "a love letter": ("letter", "envelope with a heart", "envelope with heart", "letter with a heart"),
}
"""Further names of the card's things, by prompt, without colours, articles, "face", "head" and "icon".

They are also those of the thing in another colour.
"""

_ARTICLES = {"a", "an", "the"}
_IGNORED = {"face", "head", "icon", "emoji", "black", "white", "grey", "gray"} | {name for name, *_ in BOUNDS}


def is_named(prompt: str, answer: str) -> bool:
    """Return whether a judge's answer names the thing of a prompt without style."""
    thing = _essence(prompt)
    return _essence(answer) in {thing, *_ACCEPTED.get(thing, ())}


def _essence(name: str) -> tuple[str, ...]:
    """Return the words that matter, or all if none does ("orange")."""
    words = [word for word in re.findall(r"[a-z]+", name.lower()) if word not in _ARTICLES]
    return tuple(word for word in words if word not in _IGNORED) or tuple(words)


_ACCEPTED = {_essence(prompt): {_essence(name) for name in names} for prompt, names in SYNONYMS.items()}


def named_things(judged: Mapping[str, Mapping[str, Sequence[str]]], judge: int) -> list[str]:
    """Return the things that a judge names right in at least `ENOUGH_STYLES` styles.

    `judged` is `card/judged.json`: {prompt: {style: [answer of each judge]}}.
    """
    return [
        prompt
        for prompt, answers in judged.items()
        if sum(is_named(prompt, given[judge]) for given in answers.values()) >= ENOUGH_STYLES
    ]
