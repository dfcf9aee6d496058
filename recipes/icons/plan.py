"""What there is to render: a picture per icon, with its split, captions and meta."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galip.progress import Progress
from icons.captions import captions_of
from icons.commonness import Commonness
from icons.extra import BROKEN_ICONS
from icons.names import Names, Thing, split_of
from icons.sources import Package, icons_of

__all__ = ["Plan", "by_hash", "plan_icons"]


@dataclass(frozen=True)
class Plan:
    """A picture to render."""

    key: str
    split: str
    svg: str
    captions: list[str]
    meta: dict[str, Any]
    background: str = "white"
    """Of the whole picture, as CSS has it."""


def by_hash(planned: Iterable[Plan]) -> list[Plan]:
    """Return the pictures in the order of a hash of their keys, which mixes sets and things."""
    return sorted(planned, key=lambda plan: hashlib.sha256(plan.key.encode()).digest())


def plan_icons(
    icon_sets: Sequence[Package], archives: Sequence[Path], names: Names, progress: Progress
) -> tuple[list[Plan], dict[str, float]]:
    """Return every picture to render, with sets and things mixed, and each set's share of known names."""
    from galip.clip import clip_tokenizer  # imports torch, which rendering workers don't need

    planned: list[Plan] = []
    matched: dict[str, float] = {}
    commonness = Commonness(clip_tokenizer(48_894, 77).merges)
    for done, (package, archive) in enumerate(zip(icon_sets, archives, strict=True), 1):
        matches: Counter[bool] = Counter()
        for icon in icons_of(archive):
            thing = names.thing(icon, package.short)
            key = f"{package.short}--{icon.name}"
            if key in BROKEN_ICONS:
                continue
            matches[thing.matched] += 1
            captions = captions_of(thing, package.style, key)
            meta = _meta(thing, commonness, package, icon.name, captions)
            planned.append(Plan(key, split_of(thing.base), icon.svg, captions, meta))
        progress("read icons", done, len(icon_sets))
        matched[package.short] = round(matches[True] / max(1, matches.total()), 4)
    return by_hash(planned), matched


def _meta(
    thing: Thing, commonness: Commonness, package: Package, icon_name: str, captions: list[str]
) -> dict[str, Any]:
    rank, ranked_by = commonness.rank(thing)
    return {
        "thing": thing.name,
        "base": thing.base,
        "style": package.style,
        "skin_tone": thing.skin_tone,
        "group": thing.group,
        "subgroup": thing.subgroup,
        "order": thing.order,
        "rank": rank,
        "ranked_by": ranked_by,
        "tags": list(thing.tags),
        "aliases": list(thing.aliases),
        "captions": captions,
        "source": package.spec,
        "icon": icon_name,
        "licence": package.licence,
    }
