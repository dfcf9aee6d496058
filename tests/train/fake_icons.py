"""Tiny stand-ins of the npm packages: drawn icons in three sets, and an emoji table that knows them."""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

from icons.sources import Package

GROUPS = {
    "groups": {"1": "people-body", "4": "food-drink", "5": "travel-places", "9": "flags"},
    "subgroups": {"42": "food-fruit", "59": "sky-weather", "54": "transport-ground"},
}


def toned(hexcode: str, tone: str) -> str:
    person, joint, rest = hexcode.partition("-")
    return f"{person}-{tone}{joint}{rest}"


def entry(hexcode: str, label: str, group: int, order: int, tags: str = "", tones: bool = False) -> dict:
    codes = {"light": "1F3FB", "dark": "1F3FF"} if tones else {}
    skins = [{"label": f"{label}: {t} skin tone", "hexcode": toned(hexcode, c)} for t, c in codes.items()]
    known = {"label": label, "hexcode": hexcode, "group": group, "subgroup": 42, "order": order}
    return known | {"tags": tags.split()} | ({"skins": skins} if skins else {})


ENTRIES = [
    entry("1F34E", "red apple", 4, 10, "apple fruit red"),
    entry("1F419", "octopus", 4, 11, "animal"),
    entry("1F347", "grapes", 4, 12, "fruit"),
    entry("1F525", "fire", 5, 20, "burn flame hot"),
    entry("1F697", "automobile", 5, 21, "car drive"),
    entry("2B50", "star", 5, 22, "astronomy"),
    entry("1F44B", "waving hand", 1, 1, "hand hello", tones=True),
    entry("1F9D1-200D-1F52C", "scientist", 1, 2, tones=True),
    entry("1F468-200D-1F52C", "man scientist", 1, 3, tones=True),
    entry("1F1EB-1F1F7", "flag: France", 9, 90, "FR flag"),
]
SHORTCODES = {"1F697": ["car"], "1F34E": "apple"}

CIRCLE = '<circle cx="16" cy="16" r="14" fill="{}"/>'
COLOURS = {"alpha": "#c00", "beta": "#0a0", "gamma": "#00c"}
ICONS = {
    "alpha": ["red-apple", "octopus", "fire", "automobile", "waving-hand", "waving-hand-light", "scientist"],
    "beta": [
        "apple",
        "grapes",
        "car",
        "waving-hand-dark-skin-tone",
        "flag-for-france",
        "odd-thing",
        "hand-left",
    ],
    "gamma": ["u1", "u2", "u3", "u4"],
}
GAMMA_CHARS = {"1f34e": "u1", "1f468-1f3ff-200d-1f52c": "u2", "2b50": "u3", "1f525": "u4"}


def archive(path: Path, members: dict[str, object]) -> str:
    """Writes a .tgz in npm's layout; returns its sha512 as npm's integrity has it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, document in members.items():
            content = json.dumps(document).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def make_packages(folder: Path) -> tuple[list[Package], Package]:
    """Archives of three icon sets and an emoji table in `folder`: (icon sets, emoji table)."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = []
    for name, icons in ICONS.items():
        drawn = {icon: {"body": CIRCLE.format(COLOURS[name])} for icon in icons}
        document = {"prefix": name, "width": 32, "height": 32, "icons": drawn, "aliases": {}}
        if name == "beta":
            document["aliases"] = {"hand-right": {"parent": "hand-left", "hFlip": True}}
            document["icons"]["old-one"] = {"body": "", "hidden": True}
        members: dict[str, object] = {"icons.json": document}
        if name == "gamma":
            members["chars.json"] = GAMMA_CHARS
        sha512 = archive(folder / f"icons-{name}-1.0.0.tgz", members)
        sets.append(Package(f"@icons/{name}", "1.0.0", sha512, "MIT", f"{name} style"))
    table = {"en/data.json": ENTRIES, "meta/groups.json": GROUPS, "en/shortcodes/emojibase.json": SHORTCODES}
    sha512 = archive(folder / "emoji-table-2.0.0.tgz", table)
    return sets, Package("emoji-table", "2.0.0", sha512, "MIT")
