"""The samples in a WebDataset tar, read one by one: their members, captions and encoded pictures.

A sample is a run of members that share a key (the member's path up to the first dot of its file name):
`KEY.png` (or .jpg, .webp, .gif, .bmp, .avif), `KEY.txt` with one caption, and optionally `KEY.json` with
anything; its `captions` (a list) are further captions. img2dataset writes the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular
from numpy.typing import NDArray

from galip.data.decode import MAX_PICTURE_BYTES, PICTURE_ENDINGS, BrokenPicture, EncodedPicture
from galip.data.left_out import LeftOut
from galip.data.tars import Member, has_end, members
from galip.data.texts import UNUSABLE, check_captions, decode_text, parse_json, usable_captions

__all__ = [
    "TEXT_ENDINGS",
    "RawSample",
    "captions_and_meta",
    "check_ends",
    "check_size",
    "contents_of",
    "members_of",
    "picture_ending",
    "raw_sample",
    "read_member",
]

TEXT_ENDINGS = ("txt", "json")
MAX_TEXT_BYTES = 2**22
"""Of a sample's caption or JSON."""
ABOUT = ("readme", "license", "licence", "notice")
"""Names of files that describe a tar; `README.txt` is not a caption."""


@dataclass(frozen=True)
class RawSample:
    """A sample whose picture is still encoded."""

    shard: Path
    key: str
    captions: tuple[str, ...]
    """The caption, then further `captions` of the JSON."""
    meta: dict[str, Any]
    content: bytes

    @property
    def encoded(self) -> EncodedPicture:
        """The picture, named by shard and key."""
        return EncodedPicture(f"{self.shard}: sample {self.key}", self.content)

    def array(self) -> NDArray[np.uint8]:
        """Decode it to RGB (H, W, 3). Raises `BrokenPicture`."""
        return np.asarray(self.encoded.decode())


def check_ends(shards: Iterable[Path]) -> None:
    """Raise FileRefused, naming all of them, for tars whose end is missing; only ends are read."""
    cut = [str(shard) for shard in shards if not _has_end(shard)]
    if cut:
        raise FileRefused(
            f"{', '.join(cut)}: broken or truncated tar: its end is missing. Fetch or build it again, or "
            "remove it."
        )


def _has_end(shard: Path) -> bool:
    with open_regular(shard) as file:
        return has_end(file)


def members_of(
    shard: Path, left_out: LeftOut | None = None
) -> Iterator[tuple[BinaryIO, str, dict[str, Member]]]:
    """Yield runs of members with one key, as (tar, key, {ending: member}), without reading contents.

    A second member with the same key and ending begins another sample. What belongs to no sample is counted
    in `left_out`: links and devices, hidden files (macOS writes `._NAME` beside each), files without an
    ending, webdataset's own `__NAME__.json`, a README, and what else a sample has but picture, caption, JSON.
    Raises FileRefused for a broken or truncated tar.
    """
    left_out = LeftOut() if left_out is None else left_out
    key = ""
    sample: dict[str, Member] = {}
    with _named_errors(shard, lambda: key), open_regular(shard) as tar:
        for member in members(tar):
            if member.kind == "folder" or not (parts := _key_and_ending(member, left_out)):
                continue
            if parts[0] != key and parts[1] not in (*PICTURE_ENDINGS, *TEXT_ENDINGS):
                _count_ending(parts[1], member, left_out)  # such as Thumbs.db, which ends no sample
                continue
            if sample and (parts[0] != key or parts[1] in sample):
                if _is_sample(sample, left_out):
                    yield tar, key, sample
                sample = {}
            key = parts[0]
            sample[parts[1]] = member
        if sample and _is_sample(sample, left_out):
            yield tar, key, sample


def _key_and_ending(member: Member, left_out: LeftOut) -> tuple[str, str] | None:
    """Return the key of a member's sample and its ending; count a member of no sample and return None."""
    parent, _, file = member.name.rpartition("/")
    stem, _, ending = file.partition(".")
    folders = [part for part in parent.split("/") if part not in (".", "..")]
    if member.kind != "file":
        left_out.add("links, devices and sparse files in tars", member.name)
    elif not stem or any(part.startswith((".", "__MACOSX")) for part in folders):
        left_out.add("hidden files in tars", member.name)
    elif not ending or (stem.startswith("__") and stem.endswith("__")) or stem.lower() in ABOUT:
        left_out.add("files about their tar", member.name)
    else:
        return (f"{parent}/{stem}" if parent else stem), ending.lower()
    return None


def _is_sample(sample: Mapping[str, Member], left_out: LeftOut) -> bool:
    """Return whether there is a picture or a caption; count everything else."""
    pictures = [ending for ending in PICTURE_ENDINGS if ending in sample]
    is_sample = bool(pictures or "txt" in sample)
    for ending, member in sample.items():
        if not is_sample or ending not in (*PICTURE_ENDINGS, *TEXT_ENDINGS):
            _count_ending(ending, member, left_out)
    for ending in pictures[1:]:
        left_out.add("further pictures of one sample in tars", sample[ending].name)
    return is_sample


def _count_ending(ending: str, member: Member, left_out: LeftOut) -> None:
    left_out.add(f"files in tars ending in .{ending}", member.name)


def contents_of(
    shard: Path, left_out: LeftOut | None = None, *, skip: int = 0
) -> Iterator[tuple[str, dict[str, bytes] | BrokenPicture]]:
    """Yield the samples of a tar as (key, {ending: content}), without reading the first `skip`.

    A sample with a member that is too large to read yields a `BrokenPicture` instead. What belongs to no
    sample is counted in `left_out`, as by `members_of`.
    """
    for number, (tar, key, sample) in enumerate(members_of(shard, left_out)):
        if number < skip:
            continue
        members = {end: sample[end] for end in sample if end in (*PICTURE_ENDINGS, *TEXT_ENDINGS)}
        contents: dict[str, bytes] | BrokenPicture
        try:
            for member in members.values():
                check_size(shard, member)
            with _named_errors(shard, lambda key=key: key):  # type: ignore[misc]
                contents = {ending: read_member(tar, member) for ending, member in members.items()}
        except BrokenPicture as error:
            contents = error
        yield key, contents


def check_size(shard: Path, member: Member) -> None:
    """Raise `BrokenPicture` for a member that is larger than any picture or text."""
    limit = MAX_TEXT_BYTES if member.name.lower().endswith(TEXT_ENDINGS) else MAX_PICTURE_BYTES
    if member.size > limit:
        raise BrokenPicture(f"{shard}: {member.name} has {member.size:,} bytes; at most {limit:,} are read")


def read_member(tar: BinaryIO, member: Member) -> bytes:
    """Return a plain file's content, after `check_size`. Raises ValueError if it is cut off."""
    tar.seek(member.offset)
    content = tar.read(member.size)
    if len(content) < member.size:
        raise ValueError("it ends within a member")
    return content


@contextlib.contextmanager
def _named_errors(shard: Path, key: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        where = f" after key {key()}" if key() else ""
        raise FileRefused(
            f"{shard}: broken or truncated tar{where}: {error}. Fetch or build it again."
        ) from error


def picture_ending(shard: Path, key: str, endings: Iterable[str]) -> str:
    """Return which of a sample's members is its picture. Raises FileRefused if none is."""
    picture = next((ending for ending in PICTURE_ENDINGS if ending in endings), None)
    if picture is None:
        raise FileRefused(
            f"{shard}: sample {key} has no picture (.{', .'.join(PICTURE_ENDINGS)}), only {sorted(endings)}."
        )
    return picture


def raw_sample(
    shard: Path, key: str, contents: Mapping[str, bytes], left_out: LeftOut | None = None
) -> RawSample:
    """Build a sample from its members' contents. Raises FileRefused if its picture or caption is bad.

    Further captions that cannot be used are counted in `left_out`.
    """
    ending = picture_ending(shard, key, contents)
    captions, meta = captions_and_meta(shard, key, contents, left_out)
    return RawSample(shard, key, captions, meta, contents[ending])


def captions_and_meta(
    shard: Path, key: str, contents: Mapping[str, bytes], left_out: LeftOut | None = None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return captions and meta of a sample, from its .txt and .json. Raises FileRefused.

    Further captions that are empty or no text are left out, and counted in `left_out`.
    """
    if "txt" not in contents:
        raise FileRefused(f"{shard}: sample {key} has no caption (.txt), only {sorted(contents)}.")
    try:
        (caption,) = check_captions([decode_text(contents["txt"])])
        meta = parse_json(contents["json"]) if "json" in contents else {}
    except ValueError as error:
        raise FileRefused(f"{shard}: sample {key}: caption or JSON is not readable: {error}") from error
    if not isinstance(meta, dict):
        raise FileRefused(f"{shard}: sample {key}: its JSON is not an object.")
    others = meta.get("captions", [])
    if not isinstance(others, list):
        raise FileRefused(f"{shard}: sample {key}: `captions` in its JSON is not a list of texts.")
    try:
        texts, unusable = usable_captions([caption, *others])
    except ValueError as error:
        raise FileRefused(f"{shard}: sample {key}: {error}.") from error
    left_out = LeftOut() if left_out is None else left_out
    for other in unusable:
        left_out.add(UNUSABLE, f"{key}: {other!r}")
    return (caption, *(text for text in texts[1:] if text != caption)), meta
