"""One name per thing in all icon sets: icon names and code points → emojibase's entry → a natural name."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused

from icons.extra import EXTRA_NAMES
from icons.sources import Icon, read_member

__all__ = ["Names", "Thing", "fuse", "natural_name", "split_of"]

SHORTCODES = ("cldr", "emojibase", "github", "joypixels", "iamcal", "emojibase-legacy")
TONE = re.compile(r"[ :,-]*\b((?:medium-light|medium-dark|light|medium|dark)(?: skin tone)?)$")
_READABLE = re.compile(
    r"(?!regional indicator|flag )(?=.*[a-z]{3})(?!.*\b[mwbg]{2,}\b)(?!.*\d)(?!.*oclock|.*thirty).+"
)
TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")
TONE_CODE = re.compile(r"-1F3F[B-F]")


@dataclass(frozen=True)
class Thing:
    """The thing that an icon shows, the same in all styles."""

    name: str
    """Canonical natural name without article: "red apple"."""
    base: str
    """Name without gender, hair and skin tone: all pictures of one base are in one split."""
    group: str
    subgroup: str
    skin_tone: str | None = None
    """"light", "medium-light", … or None for the plain picture."""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    """Other names, without article: "car" for "automobile"."""
    order: int | None = None
    """Position in emojibase's order; None if it isn't an emoji."""
    matched: bool = field(default=True, compare=False)
    """Whether the emoji table has it."""


def fuse(name: str) -> str:
    """Return only the letters and digits of a name, in lower-case ASCII: "Piñata!" → "pinata"."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("&", " and "))
    return re.sub(r"[^a-z0-9]", "", plain)


def split_of(base: str) -> str:
    """Return the split of a thing, "train", "val" or "test" (90/5/5), from its base name alone."""
    digest = hashlib.sha256(f"galip icons split 1: {fuse(base) or base}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.9 else "val" if share < 0.95 else "test"


def natural_name(label: str) -> str:
    """Return a label in plain words: "flag: France" → "flag of France", "man: bald" → "bald man"."""
    name = label.replace("’", "'").replace("“", "").replace("”", "").replace(" (blood type)", "")
    name = name.replace("regional indicator", "letter")
    if time := re.fullmatch(r"(\w+)( o'clock|-thirty)", name):
        return f"clock showing {time[1]}{time[2].replace('-', ' ')}"
    head, colon, rest = name.partition(": ")
    if not colon:
        return name
    if head == "flag":
        return f"flag of {rest}"
    if head == "keycap":
        return f"keycap {rest}"
    if rest == "bald":
        return f"bald {head}"
    if rest == "beard":
        return f"{head} with beard"
    if rest.startswith("facing"):
        return f"{head} {rest}"
    if head in ("kiss", "family", "couple with heart"):
        *others, last = rest.split(", ")
        members = f"{', '.join(others)} and {last}" if others else last
        return f"{head} of {members}" if head != "couple with heart" else f"{head}, {members}"
    return f"{head} with {rest}"


# Code points that are the same thing in another gender
_SAME_BASE = {"1F57A": "1F483", "1F478": "1F934", "1F936": "1F385", "1F474": "1F9D3", "1F475": "1F9D3"}


def _base_code(code: str) -> str:
    """Return code points without skin tone, hair and gender: those of the person, if emojibase has them."""
    code = TONE_CODE.sub("", code).replace("-FE0F", "")
    code = re.sub(r"-200D-(2640|2642|1F9B[0-3])", "", code)
    code = re.sub(r"\b1F46[89]\b", "1F9D1", code)
    code = re.sub(r"\b1F46[67]\b", "1F9D2", code)
    if "1F48B" in code:
        return "1F48F"
    if "200D-2764" in code and code.startswith("1F9D1"):
        return "1F491"
    if re.fullmatch(r"1F9D1(-200D-1F9D[12])+", code):
        return "1F46A"
    if code in ("1F46B", "1F46C", "1F46D"):
        return "1F9D1-200D-1F91D-200D-1F9D1"
    return _SAME_BASE.get(code, code)


class Names:
    """Finds the thing that an icon shows in the emoji table (the emojibase-data archive)."""

    def __init__(self, emojibase: Path):
        entries = read_member(emojibase, "en/data.json")
        groups = read_member(emojibase, "meta/groups.json")
        if not isinstance(entries, list) or not isinstance(groups, dict):
            raise FileRefused(
                f"{emojibase} is not emojibase-data: en/data.json or meta/groups.json is missing."
            )
        self._entries: dict[str, dict[str, Any]] = {entry["hexcode"]: entry for entry in entries}
        self._groups = groups
        self._tones: dict[str, tuple[str, str]] = {}  # code without FE0F → (code of the plain one, tone)
        self._codes: dict[str, str] = {_bare(code): code for code in self._entries}
        for code, entry in self._entries.items():
            for skin in entry.get("skins", ()):
                self._tones[_bare(skin["hexcode"])] = (code, _tone_of(skin["label"]))
        self._shortcodes: dict[str, list[str]] = {code: [] for code in self._entries}
        self._by_name: dict[str, str] = {}
        self._read_names(emojibase)

    def _read_names(self, emojibase: Path) -> None:
        for code, entry in self._entries.items():
            self._by_name.setdefault(fuse(entry["label"]), code)
            self._by_name.setdefault(fuse(natural_name(entry["label"])), code)
        for table in SHORTCODES:
            for code, names in (read_member(emojibase, f"en/shortcodes/{table}.json") or {}).items():
                for name in [names] if isinstance(names, str) else names:
                    if code in self._entries:
                        self._by_name.setdefault(fuse(name), code)
                        if table in ("cldr", "emojibase"):
                            self._shortcodes[code].append(name)
        for code, name in (read_member(emojibase, "meta/unicode-names.json") or {}).items():
            if code in self._entries:
                self._by_name.setdefault(fuse(name), code)

    def thing(self, icon: Icon, set_name: str) -> Thing:
        """Return the thing that an icon of a set shows: by code point, else by name, else by its aliases."""
        for hexcode in icon.hexcodes:
            if thing := self._by_code(_bare(hexcode.upper())):
                return thing
        for name in (icon.name, *icon.aliases):
            if thing := self._by_icon_name(name, set_name):
                return thing
        plain, tone = _renamed(icon.name, set_name), None
        if plain.endswith("-skin-tone"):
            plain, tone = _split_tone(plain)
        words = plain.replace("-", " ")
        return Thing(words, words, "other", set_name, tone, tags=tuple(words.split()), matched=False)

    def _by_code(self, bare: str) -> Thing | None:
        if bare in self._tones:
            return self._make(*self._tones[bare])
        if bare in self._codes:
            return self._make(self._codes[bare], None)
        # Only this set has this gender or tone: take the person's own entry
        tones = ", ".join(TONE_NAMES[int(digit, 16) - 0xB] for digit in re.findall(r"1F3F([B-F])", bare))
        code = self._codes.get(TONE_CODE.sub("", bare)) or self._codes.get(_base_code(bare))
        return self._make(code, tones or None) if code else None

    def _by_icon_name(self, name: str, set_name: str) -> Thing | None:
        name = _renamed(name, set_name)
        name = re.sub(r"^flag-for-(flag-)?(?!.*flag)", "flag-", name)
        name = re.sub(r"^flag-for-(?=.*flag)", "", name)
        if code := self._by_name.get(fuse(name)):
            return self._make(code, None)
        plain, tone = _split_tone(name)
        code = self._by_name.get(fuse(_renamed(plain, set_name))) if tone else None
        return self._make(code, tone) if code and self._entries[code].get("skins") else None

    def _make(self, code: str, tone: str | None) -> Thing:
        entry = self._entries[code]
        base = self._entries.get(self._codes.get(_base_code(code), code), entry)
        name = natural_name(entry["label"])
        group, subgroup = entry.get("group"), entry.get("subgroup")
        return Thing(
            name=name,
            base=natural_name(base["label"]),
            group=self._groups["groups"].get(str(group), "component"),
            subgroup=self._groups["subgroups"].get(str(subgroup), "other"),
            skin_tone=tone,
            tags=tuple(entry.get("tags", ())),
            aliases=tuple(_aliases(name, self._shortcodes[code])),
            order=entry.get("order"),
        )


def _renamed(name: str, set_name: str) -> str:
    return EXTRA_NAMES.get(set_name, {}).get(name) or EXTRA_NAMES["*"].get(name, name)


def _split_tone(name: str) -> tuple[str, str | None]:
    """Split the skin tones from the end of an icon name: "skier-dark-skin-tone" → "skier", "dark"."""
    plain, tones = name.replace("-skin-tone", " skin tone"), list[str]()
    while tone := TONE.search(plain):
        tones.insert(0, tone[1].removesuffix(" skin tone"))
        plain = plain[: tone.start()]
    return (plain, ", ".join(tones)) if plain and tones else (name, None)


def _bare(code: str) -> str:
    return code.replace("-FE0F", "")


def _tone_of(label: str) -> str:
    tones = re.findall(r"(medium-light|medium-dark|light|medium|dark) skin tone", label)
    return ", ".join(tones)


def _aliases(name: str, shortcodes: Iterable[str]) -> Iterable[str]:
    fused = {fuse(name)}
    for shortcode in shortcodes:
        words = shortcode.replace("_", " ").replace("-", " ").strip()
        if fuse(words) not in fused and _READABLE.fullmatch(words):
            fused.add(fuse(words))
            yield words
