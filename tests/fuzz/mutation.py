"""Random changes to bytes, JSON documents and files."""

import copy
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["altered", "as_json", "change_file", "mutated", "odd_text", "odd_value", "pick"]

Rng = np.random.Generator


def pick(rng: Rng, items: Any) -> Any:
    """Return one of `items`; numpy's `choice` would convert them. Raises LookupError if there are none."""
    items = list(items)
    if not items:
        raise LookupError("there is nothing to choose from")
    return items[int(rng.integers(len(items)))]


# Bytes


def mutated(data: bytes, rng: Rng) -> bytes:
    """Return `data` with at least one change: bits flipped, bytes removed, inserted, moved or overwritten."""
    changed = bytearray(data)
    for _ in range(pick(rng, (1, 1, 1, 2, 5))):
        pick(rng, (_flip, _letter, _letter, _truncate, _insert, _delete, _overwrite, _repeat, _swap))(
            changed, rng
        )
    if bytes(changed) == data:
        changed += b"\0"
    return bytes(changed)


def _span(data: bytearray, rng: Rng) -> slice:
    """Return a span of up to 64 bytes, often near the start, where headers are."""
    last = min(len(data), pick(rng, (256, 2**62, 2**62)))
    start = int(rng.integers(last + 1))
    return slice(start, start + int(rng.integers(1, 65)))


def _flip(data: bytearray, rng: Rng) -> None:
    for _ in range(pick(rng, (1, 1, 8)) if data else 0):
        place = min(_span(data, rng).start, len(data) - 1)
        data[place] ^= 1 << int(rng.integers(8))


def _letter(data: bytearray, rng: Rng) -> None:
    """Replace a letter or digit by another, so that text remains text."""
    places = [place for place, byte in enumerate(data[:100_000]) if chr(byte).isalnum() and byte < 128]
    if places:
        place = pick(rng, places)
        data[place] = ord(
            pick(rng, "0123456789" if chr(data[place]).isdigit() else "abcdefghijklmnopqrstuvwxyz")
        )


def _truncate(data: bytearray, rng: Rng) -> None:
    del data[_span(data, rng).start :]


def _insert(data: bytearray, rng: Rng) -> None:
    span = _span(data, rng)
    data[span.start : span.start] = rng.bytes(span.stop - span.start)


def _delete(data: bytearray, rng: Rng) -> None:
    del data[_span(data, rng)]


def _overwrite(data: bytearray, rng: Rng) -> None:
    span = _span(data, rng)
    length = len(data[span])
    data[span] = pick(rng, (bytes(length), b"\xff" * length, rng.bytes(length)))


def _repeat(data: bytearray, rng: Rng) -> None:
    span = _span(data, rng)
    data[span.stop : span.stop] = data[span] * pick(rng, (1, 1, 100))


def _swap(data: bytearray, rng: Rng) -> None:
    one, other = sorted((_span(data, rng).start, _span(data, rng).start))
    data[:] = data[:one] + data[other:] + data[one:other]


# Texts and JSON


_TEXTS = (
    "", " ", "\0", "\ud800", "\x1b[31mred\x1b[0m\x07", "..", "../../etc/passwd", "/dev/zero", "a" * 5000,
    "日本語🐦", "e\u0301\u200b\u202e", "<script>alert(1)</script>|", "nan", "-1", "1e999", "CON", "%s{0}",
    "a\nb\r\nc", "x" * 300 + "/y", "true", "null",
)  # fmt: skip


def odd_text(rng: Rng) -> str:
    """Return an unusual string."""
    return str(pick(rng, _TEXTS))


_RAW = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "infinite": "1e999",
    "minus infinite": "-1e999",
    "digits": "9" * 5000,
    "digits and exponent": "1" + "0" * 5000 + "e5",
    "nan": "NaN",
    "half a pair": r'"\ud800"',
    "twice": '{"a": 1, "a": 2}',
    "long": '"' + "x" * 1_000_000 + '"',
    "many": "[" + "1," * 300_000 + "1]",
}
"""JSON that is inserted into a document verbatim."""
_MARK = "\0raw "


def odd_value(rng: Rng) -> Any:
    """Return an unusual JSON value."""
    kind = rng.integers(6)
    if kind == 0:
        return _MARK + str(pick(rng, _RAW))
    if kind == 1:
        return odd_text(rng)
    if kind == 2:
        return pick(rng, (None, True, False, [], {}, [[]], [None], {"a": None}, {"": ""}))
    if kind == 3:
        return pick(rng, (0.5, -0.0, 1e-320, 1e308, -1e308, 3.0, 2.0**53))
    signs = (1, 1, 1, -1)
    return pick(rng, signs) * pick(rng, (0, 1, 2, 3, 255, 65_536, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**11))


def altered(document: Any, rng: Rng) -> Any:
    """Return a copy of a JSON `document` with a value replaced, removed, duplicated or moved."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    if not places:
        return odd_value(rng)
    container, key = pick(rng, places)
    kind = rng.integers(8)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == 1:
        container[pick(rng, (odd_text(rng), f"{key} "))] = container[key]
    elif kind == 2:
        other, its_key = pick(rng, places)
        container[key] = copy.deepcopy(other[its_key])
    elif kind == 3 and isinstance(container[key], int) and not isinstance(container[key], bool):
        container[key] += pick(rng, (1, -1))
    else:
        container[key] = odd_value(rng)
    return document


def _places(document: Any) -> Any:
    """Yield (container, key) of every value in the document, without recursion."""
    containers = [document]
    while containers:
        container = containers.pop()
        keys = (
            container.keys()
            if isinstance(container, dict)
            else range(len(container) if isinstance(container, list) else 0)
        )
        for key in keys:
            yield container, key
            containers.append(container[key])


def as_json(document: Any, **options: Any) -> bytes:
    """Serialise a document that may contain values of `odd_value`."""
    text = json.dumps(document, **options)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(_MARK + name), raw)
    return text.encode("utf-8", "surrogatepass")


# Files


def change_file(path: Path, rng: Rng, change: Callable[[bytes, Rng], bytes] = mutated) -> str:
    """Change the file at `path`, mostly by `change`, and return how."""
    if rng.random() < 0.85:
        path.write_bytes(change(path.read_bytes(), rng))
        return change.__name__
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    kind = str(pick(rng, ("gone", "empty", "fifo", "socket", "folder", "endless", "loop", "other", "long")))
    if kind == "other" and others:  # swap the two
        other, data = pick(rng, others), path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return f"other {other.name}"
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "folder":
        path.mkdir()
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "long":
        with path.open("wb") as file:
            file.truncate(2**42)  # no bytes on disk
    return kind
