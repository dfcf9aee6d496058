"""How common the things of the icons are, and the things that the default model's card shows by that rule."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""How many things of each emojibase group; people, symbols and flags are left out."""

SUFFIX_WORDS = 15
COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey", "pink"}


@dataclass(frozen=True)
class CommonThing:
    """One thing of the card: its name, canonical prompt without style, and why it is there."""

    thing: str
    prompt: str
    group: str
    rank: int
    """Rank, in CLIP's vocabulary, of the rarest word of the name (or other name) that it was ranked by."""
    ranked_by: str
    styles: tuple[str, ...]


class Commonness:
    """Ranks things by what CLIP's vocabulary, ordered by how often words were met on the web, holds early.

    A thing ranks by the rarest word of its name, or of another name of it ("car" for "automobile") that is
    also among its tags. A word of up to three letters that is mostly the end of longer ones ("ant" of
    "restaurant": more than 15 in the vocabulary) tells nothing and is taken as rare.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """`merges`: CLIP's pairs, most frequent first."""
        self._ranks = _word_ranks(merges)
        self._rare = len(self._ranks) * 100

    def rank(self, thing: Thing) -> tuple[int, str]:
        """(place in the vocabulary, from 0 for the commonest; the name that gave it)."""
        names = [thing.name, *(name for name in thing.aliases if name in thing.tags)]
        name = min(names, key=self._rank_of)
        return self._rank_of(name), name

    def _rank_of(self, name: str) -> int:
        return max((self._ranks.get(word, self._rare) for word in _words(name)), default=self._rare)


def commonest_things(
    folder: Path, *, quotas: Mapping[str, int] = CARD_QUOTAS, min_styles: int = 6
) -> list[CommonThing]:
    """The commonest things of the train split, by this rule:

    1. A thing counts if it is drawn in at least `min_styles` styles, is of a group in `quotas` (no people,
       symbols or flags) and its name has one or two words; pictures with a skin tone are left out.
    2. Best `Commonness` ranks first, within each group up to its quota; one that shares a word with a thing
       already taken there, colours aside, is passed over (one cat, one book). Of equal rank, the shorter name
       comes first, then emojibase's order decides.

    Raises what `read_metas` raises.
    """
    styles: dict[str, set[str]] = {}
    known: dict[str, dict[str, Any]] = {}
    for meta in read_metas(folder, "train"):
        if not meta["skin_tone"] and meta["group"] in quotas and meta["order"] is not None:
            styles.setdefault(meta["thing"], set()).add(meta["style"])
            known.setdefault(meta["thing"], meta)
    ranked = sorted(
        (meta["rank"], len(thing.split()), meta["order"], thing)
        for thing, meta in known.items()
        if len(styles[thing]) >= min_styles and len(thing.split()) <= 2
    )
    taken: list[CommonThing] = []
    left = dict(quotas)
    words: dict[str, set[str]] = {group: set() for group in quotas}
    for rank, _, _, thing in ranked:
        meta = known[thing]
        group = meta["group"]
        own = set(_words(thing)) | set(_words(meta["ranked_by"]))
        own = {word.removesuffix("s") for word in own} - COLOURS
        if left[group] and not own & words[group]:
            left[group] -= 1
            words[group] |= own
            prompt = meta["captions"][0].removesuffix(f", {meta['style']}")
            taken.append(
                CommonThing(thing, prompt, group, rank, meta["ranked_by"], tuple(sorted(styles[thing])))
            )
    return sorted(taken, key=lambda item: (list(quotas).index(item.group), item.rank))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())


def _word_ranks(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """{whole word: place in the vocabulary}, without short words that are mostly endings."""
    ranks: dict[str, int] = {}
    for place, (first, second) in enumerate(merges):
        if second.endswith("</w>"):
            ranks.setdefault((first + second).removesuffix("</w>"), place)
    endings = Counter(word[-length:] for word in ranks for length in (2, 3) if len(word) > length)
    return {word: place for word, place in ranks.items() if len(word) > 3 or endings[word] <= SUFFIX_WORDS}
