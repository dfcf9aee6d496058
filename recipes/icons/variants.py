"""Variants of the icons: the same drawings recoloured, paired, counted, on a background, or smaller.

Their captions say so, which teaches how captions compose. All choices come from hashes of the pictures' keys.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from galip_runtime.errors import UsageError
from PIL import Image

from galip.progress import Progress
from icons.captions import with_article
from icons.commonness import CARD_QUOTAS
from icons.compose import arranged, mirrored
from icons.oklch import Array, hex_of_lch, lab_of_lch
from icons.phrases import (
    colourless,
    colours_for,
    counted,
    has_preposition,
    is_countable,
    noun_of,
    variant_captions,
)
from icons.plan import Plan
from icons.recolour import COLOURS, Family, dominant, drawn, nearest, recoloured
from icons.render import render_all

__all__ = ["KINDS", "Variants", "plan_variants"]

T = TypeVar("T")
KINDS = ("colour", "pair", "count", "background", "size")
REVISION = 1
"""Raised with every change of the variants: older builds that have them are then redone."""

LOOK = 48
"""Pixels of the pictures by which drawings are measured."""
LEAST_SHARE = 0.45
"""Of the area that the dominant hue must have for a drawing to be recoloured."""
LEAST_CONTRAST = 0.16
"""Distance in OKLab from which a colour stands out from a background."""
LOST = 0.12
"""Largest share of a drawing's area that may not stand out from the background."""
COMMON = 2_000
"""Rank from which rarer things get fewer variants."""
SMALL = (0.38, 0.42, 0.46, 0.5)
"""Sides of small drawings, as fractions of the plain ones'."""

_SOFT = {"green": 0.07, "blue": 0.06, "purple": 0.07, "pink": 0.07, "orange": 0.07}
BACKGROUNDS = {
    **{name: np.array(lch) for name, lch in COLOURS.items() if name not in ("white", "brown")},
    **{f"light {name}": np.array([0.87, chroma, COLOURS[name][2]]) for name, chroma in _SOFT.items()},
    "light yellow": np.array([0.96, 0.08, 102]),
}
"""OKLCh of the backgrounds."""

FACING = ("animal", "plant", "food", "transport", "clothing", "tool", "household")
"""Beginnings of the subgroups whose things may be mirrored …"""
LETTERED = frozenset(("stop sign", "bus stop", "station", "police car", "ambulance", "taxi", "fire engine"))
"""… without these, on which something is written."""


@dataclass(frozen=True)
class Variants:
    """How many variants a build has, of the commonest things."""

    rank: int = 22_500
    """Largest rank of a thing that has variants: about 600 things of the train split."""
    colour: float = 0.5
    """Recoloured drawings, as a multiple of the plain pictures of these things; so are the next four."""
    pair: float = 0.18
    count: float = 0.18
    background: float = 0.18
    size: float = 0.08

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UsageError(
                f"rank {self.rank} is negative; it is the largest rank of a thing with variants."
            )
        for kind in KINDS:
            if not 0 <= (share := getattr(self, kind)) <= 5:
                raise UsageError(f"{kind} {share} is out of range: variants per plain picture are 0 to 5.")

    def record(self) -> dict[str, Any]:
        """Return what tells builds apart."""
        return {"revision": REVISION, **asdict(self)}


@dataclass(frozen=True)
class _Drawing:
    """A drawing that variants are made of, as it is or recoloured."""

    plan: Plan
    lch: Array
    """Its pixels (N, 3), without the white around it."""
    noun: str
    """Without article: "car", "blue car"."""
    family: Family | None = None
    """What can be recoloured."""
    colours: tuple[str, ...] = ()
    """What it can be recoloured to."""
    colour: str | None = None
    """What it has been recoloured to."""

    @property
    def phrase(self) -> str:
        """The noun with its article."""
        return with_article(self.noun)

    @property
    def is_plain_noun(self) -> bool:
        """Whether the noun takes a number or an adjective without doubt to what it belongs."""
        return is_countable(self.noun) and not has_preposition(self.noun)

    def others(self, say: Callable[[str], str]) -> list[str]:
        """Return the phrase with the thing's full name, if that is another, such as "automobile"."""
        name = self.plan.meta["thing"]
        if self.colour:
            name = f"{self.colour} {colourless(name)}"
        return [] if name == self.noun or not is_countable(name) else [say(name)]

    def in_colour(self, colour: str) -> _Drawing:
        """Return the drawing with its dominant hue changed to a colour, of which its noun then speaks."""
        assert self.family is not None
        plan = replace(self.plan, svg=recoloured(self.plan.svg, self.family, colour))
        held = self.family.holds(self.lch)[:, None]
        lch = np.where(held, self.family.moved(self.lch, colour), self.lch)
        return replace(self, plan=plan, lch=lch, noun=f"{colour} {colourless(self.noun)}", colour=colour)


def plan_variants(
    planned: Sequence[Plan], variants: Variants, processes: int, progress: Progress
) -> list[Plan]:
    """Return the variants of the plain pictures `planned`, in no special order.

    A variant is in the split of its thing; a pair is of two things of one split. Raises as `load_inflect` and
    `render_all`.
    """
    common = [
        plan
        for plan in planned
        if plan.meta["rank"] <= variants.rank
        and plan.meta["group"] in CARD_QUOTAS
        and not plan.meta["skin_tone"]
    ]
    names = {plan.meta["thing"] for plan in planned}
    drawings = list(_measured(common, names, processes, progress))
    made: list[Plan] = []
    for kind, propose in _PROPOSE.items():
        proposals = sorted(propose(drawings), key=lambda proposal: proposal.order)
        count = round(getattr(variants, kind) * len(common))
        made += (proposal.make() for proposal in proposals[:count])
    return made


def _measured(
    common: Sequence[Plan], names: set[str], processes: int, progress: Progress
) -> Iterator[_Drawing]:
    """Yield the drawings of the plain pictures, with what their colours are and may become."""
    icons = [(plan.key, plan.svg, "white") for plan in common]
    for done, (plan, png) in enumerate(
        zip(common, render_all(icons, LOOK, processes=processes), strict=True), 1
    ):
        lch = drawn(np.asarray(Image.open(io.BytesIO(png))))
        noun, family = noun_of(plan.meta), dominant(lch)
        colours: tuple[str, ...] = ()
        if family is not None and family.share >= LEAST_SHARE:
            own, bases = nearest(family.lch), {colourless(noun), colourless(plan.meta["thing"])}
            colours = tuple(
                colour
                for colour in colours_for(plan.meta["thing"])
                if colour != own and names.isdisjoint(f"{colour} {base}" for base in bases)
            )
        yield _Drawing(plan, lch, noun, family, colours)
        if done % 100 == 0 or done == len(common):
            progress("measure drawings", done, len(common))


@dataclass(frozen=True)
class _Proposal:
    """A variant that may be made."""

    order: float
    """The lowest come first: a hash, weighted so that common things come sooner."""
    make: Callable[[], Plan]


def _proposal(make: Callable[[str, _Drawing], Plan], key: str, drawing: _Drawing) -> _Proposal:
    rank = drawing.plan.meta["rank"]
    return _Proposal(_share(key) * (rank + COMMON), partial(make, key, drawing))


def _share(text: str) -> float:
    """Return a number from 0 to 1 that is drawn by a hash."""
    return int.from_bytes(hashlib.sha256(f"variant {text}".encode()).digest()[:8]) / 2**64


def _pick(items: Sequence[T], text: str) -> T:
    """Return one of the items, drawn by a hash."""
    return items[int(_share(text) * len(items))]


def _maybe_in_colour(drawing: _Drawing, key: str, share: float) -> _Drawing:
    """Return the drawing, in that share of cases in a colour if it can have one."""
    if not drawing.colours or _share(f"{key} whether colour") >= share:
        return drawing
    return drawing.in_colour(_pick(drawing.colours, f"{key} colour"))


def _backgrounds(drawings: Sequence[_Drawing]) -> list[str]:
    """Return the backgrounds from which the drawings stand out."""
    found = []
    for name, colour in BACKGROUNDS.items():
        distances = [
            np.linalg.norm(lab_of_lch(drawing.lch) - lab_of_lch(colour), axis=1) for drawing in drawings
        ]
        if all(np.sum(distance < LEAST_CONTRAST) <= LOST * len(distance) for distance in distances):
            found.append(name)
    return found


def _maybe_background(drawings: Sequence[_Drawing], key: str, share: float) -> str | None:
    """Return a background, in that share of cases, if there is one from which the drawings stand out."""
    if _share(f"{key} whether background") >= share or not (names := _backgrounds(drawings)):
        return None
    return _pick(names, f"{key} background")


def _maybe_mirrored(drawing: _Drawing, key: str) -> _Drawing:
    """Return the drawing, every other time mirrored if it has no right and wrong side."""
    thing, subgroup = drawing.plan.meta["thing"], drawing.plan.meta["subgroup"]
    if not subgroup.startswith(FACING) or thing in LETTERED or _share(f"{key} mirror") < 0.5:
        return drawing
    return replace(drawing, plan=replace(drawing.plan, svg=mirrored(drawing.plan.svg)))


def _variant(
    kind: str,
    key: str,
    drawing: _Drawing,
    svg: str,
    phrase: str,
    others: Sequence[str] = (),
    background: str | None = None,
    **meta: Any,
) -> Plan:
    """Return a variant with the source's split and meta, and what differs."""
    source = drawing.plan
    ending = f" on {with_article(background)} background" if background else ""
    captions = variant_captions(phrase, source.meta["style"], others, ending)
    meta = {**source.meta, **meta, "captions": captions, "variant": kind}
    if drawing.colour:
        meta["colour"] = drawing.colour
    if background:
        meta["background"] = background
    css = hex_of_lch(BACKGROUNDS[background]) if background else "white"
    return Plan(key, source.split, svg, captions, meta, css)


def _propose_colours(drawings: Sequence[_Drawing]) -> Iterator[_Proposal]:
    def make(key: str, drawing: _Drawing) -> Plan:
        drawing = drawing.in_colour(key.rpartition("--")[2])
        return _variant(
            "colour", key, drawing, drawing.plan.svg, drawing.phrase, drawing.others(with_article)
        )

    for drawing in drawings:
        for colour in drawing.colours:
            yield _proposal(make, f"{drawing.plan.key}--{colour}", drawing)


def _propose_pairs(drawings: Sequence[_Drawing]) -> Iterator[_Proposal]:
    together: dict[tuple[str, str], list[_Drawing]] = defaultdict(list)
    for drawing in drawings:
        if drawing.is_plain_noun:
            together[drawing.plan.split, drawing.plan.meta["style"]].append(drawing)

    def make(key: str, first: _Drawing) -> Plan:
        others = [
            drawing
            for drawing in together[first.plan.split, first.plan.meta["style"]]
            if colourless(drawing.noun) != colourless(first.noun)
        ]
        second = _pick(others, f"{key} second")
        pair = [_maybe_in_colour(first, f"{key} 1", 0.4), _maybe_in_colour(second, f"{key} 2", 0.4)]
        background = _maybe_background(pair, key, 0.2)
        svg = arranged([drawing.plan.svg for drawing in pair])
        left, right = (drawing.phrase for drawing in pair)
        other = {"other": second.plan.meta["thing"], "rank": max(d.plan.meta["rank"] for d in pair)}
        if pair[1].colour:
            other["other_colour"] = pair[1].colour
        return _variant(
            "pair", key, pair[0], svg, f"{left} and {right}", [f"{left} next to {right}"], background, **other
        )

    for group in together.values():
        if len({colourless(drawing.noun) for drawing in group}) > 1:
            for drawing in group:
                yield _proposal(make, f"{drawing.plan.key}--pair", drawing)


def _propose_counts(drawings: Sequence[_Drawing]) -> Iterator[_Proposal]:
    def make(key: str, drawing: _Drawing) -> Plan:
        number = 2 if key.endswith("two") else 3
        drawing = _maybe_in_colour(drawing, key, 0.3)
        background = _maybe_background([drawing], key, 0.25)
        svg = arranged([drawing.plan.svg] * number)
        others = drawing.others(lambda name: counted(name, number))
        return _variant(
            "count", key, drawing, svg, counted(drawing.noun, number), others, background, count=number
        )

    for drawing in drawings:
        if drawing.is_plain_noun:
            for number in ("two", "three"):
                yield _proposal(make, f"{drawing.plan.key}--{number}", drawing)


def _propose_backgrounds(drawings: Sequence[_Drawing]) -> Iterator[_Proposal]:
    def make(key: str, drawing: _Drawing) -> Plan:
        changed = _maybe_in_colour(drawing, key, 0.25)
        drawing = _maybe_mirrored(changed if _backgrounds([changed]) else drawing, key)
        background = _maybe_background([drawing], key, 1)
        return _variant(
            "background",
            key,
            drawing,
            drawing.plan.svg,
            drawing.phrase,
            drawing.others(with_article),
            background,
        )

    for drawing in drawings:
        if _backgrounds([drawing]):
            yield _proposal(make, f"{drawing.plan.key}--background", drawing)


def _propose_sizes(drawings: Sequence[_Drawing]) -> Iterator[_Proposal]:
    def make(key: str, drawing: _Drawing) -> Plan:
        drawing = _maybe_mirrored(_maybe_in_colour(drawing, key, 0.25), key)
        svg = arranged([drawing.plan.svg], _pick(SMALL, f"{key} scale"))
        others = drawing.others(lambda name: with_article(f"small {name}"))
        return _variant(
            "size", key, drawing, svg, with_article(f"small {drawing.noun}"), others, size="small"
        )

    for drawing in drawings:
        if drawing.is_plain_noun:
            yield _proposal(make, f"{drawing.plan.key}--small", drawing)


_PROPOSE: dict[str, Callable[[Sequence[_Drawing]], Iterator[_Proposal]]] = {
    "colour": _propose_colours,
    "pair": _propose_pairs,
    "count": _propose_counts,
    "background": _propose_backgrounds,
    "size": _propose_sizes,
}
