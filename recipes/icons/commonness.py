"""Ranking the icons' things by how common they are, and the common ones that the model card shows."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galip.data.conditions import excluded
from galip.data.shards import read_metas
from icons.names import Thing

__all__ = ["CARD_QUOTAS", "CommonThing", "Commonness", "commonest_things"]

CARD_QUOTAS = {
    "animals-nature": 9,
    "food-drink": 9,
    "travel-places": 9,
    "objects": 6,
    "activities": 4,
    "smileys-emotion": 3,
}
"""Number of things per emojibase group; people, symbols and flags are left out."""

SUFFIX_WORDS = 15
COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey", "pink"}


@dataclass(frozen=True)
class CommonThing:
    """A thing on the card: its name, canonical prompt without style, and why it is there."""

    thing: str
    prompt: str
    group: str
    rank: int
    """Rank in CLIP's vocabulary of the rarest word of `ranked_by`."""
    ranked_by: str
    styles: tuple[str, ...]


class Commonness:
    """Ranks things by CLIP's vocabulary, which is ordered by how frequent words are on the web.

    A thing has the rank of the rarest word of its name, or of an alias ("car" for "automobile") that is also
    among its tags. A word of up to three letters that mostly ends longer words ("ant" in "restaurant": more
    than 15 in the vocabulary) says nothing and counts as rare.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Rank by CLIP's `merges`, most frequent first."""
        self._ranks = _word_ranks(merges)
        self._rare = len(self._ranks) * 100

    def rank(self, thing: Thing) -> tuple[int, str]:
        """Return the rank in the vocabulary, 0 for the commonest, and the name that has it."""
        names = [thing.name, *(name for name in thing.aliases if name in thing.tags)]
        name = min(names, key=self._rank_of)
        return self._rank_of(name), name

    def word_rank(self, word: str) -> int | None:
        """Return the rank in the vocabulary of a word in lower case; None if it is rare."""
        return self._ranks.get(word)

    def _rank_of(self, name: str) -> int:
        return max((self._ranks.get(word, self._rare) for word in _words(name)), default=self._rare)


def commonest_things(
    folder: Path, *, quotas: Mapping[str, int] = CARD_QUOTAS, min_styles: int = 6
) -> list[CommonThing]:
    """Return the commonest things of the train split, by this rule.

    1. A thing counts if it exists in at least `min_styles` styles, its group is in `quotas` (no people,
       symbols or flags) and its name has one or two words. Pictures with a skin tone and
       variants are left out.
    2. Things are taken by `Commonness`, in each group up to its quota. A thing that shares a word other than
       a colour with one already taken is skipped (one cat, one book). Of equal rank, the shorter name comes
       first, then emojibase's order.

    Raises as `read_metas`.
    """
    styles: dict[str, set[str]] = {}
    metas: dict[str, dict[str, Any]] = {}
    for meta in read_metas(folder, "train"):
        if excluded(meta, ("skin_tone", "variant")):
            continue
        if meta["group"] in quotas and meta["order"] is not None:
            styles.setdefault(meta["thing"], set()).add(meta["style"])
            metas.setdefault(meta["thing"], meta)
    ranked = sorted(
        (meta["rank"], len(thing.split()), meta["order"], thing)
        for thing, meta in metas.items()
        if len(styles[thing]) >= min_styles and len(thing.split()) <= 2
    )
    things: list[CommonThing] = []
    left = dict(quotas)
    words: dict[str, set[str]] = {group: set() for group in quotas}
    for rank, _, _, thing in ranked:
        meta = metas[thing]
        group = meta["group"]
        names = set(_words(thing)) | set(_words(meta["ranked_by"]))
        stems = {word.removesuffix("s") for word in names} - COLOURS
        if left[group] and not stems & words[group]:
            left[group] -= 1
            words[group] |= stems
            prompt = meta["captions"][0].removesuffix(f", {meta['style']}")
            things.append(
                CommonThing(thing, prompt, group, rank, meta["ranked_by"], tuple(sorted(styles[thing])))
            )
    return sorted(things, key=lambda item: (list(quotas).index(item.group), item.rank))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())


def _word_ranks(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return {whole word: rank in the vocabulary}, without short words that are mostly endings."""
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        if second.endswith("</w>"):
            ranks.setdefault((first + second).removesuffix("</w>"), rank)
    endings = Counter(word[-length:] for word in ranks for length in (2, 3) if len(word) > length)
    return {word: rank for word, rank in ranks.items() if len(word) > 3 or endings[word] <= SUFFIX_WORDS}
