"""Pictures with captions in WebDataset tars: written, read one by one, or decoded into memory at once.

A sample is the run of members that share a key (the member's path up to the first dot of its file name):
`KEY.png` (or .jpg, .webp, .gif, .bmp), `KEY.txt` with one caption,
optionally `KEY.json` with anything, of which
`captions` (a list) are further captions. That is what img2dataset writes, too.
"""

import contextlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import open_regular
from numpy.typing import NDArray

from galip.data.decode import MAX_PICTURE_BYTES, PICTURE_ENDINGS, BrokenPicture, EncodedPicture
from galip.data.folder import check_sums, check_whole
from galip.data.tars import Member, has_end, members
from galip.data.texts import check_captions, decode_text, parse_json

__all__ = [
    "PictureSet",
    "RawSample",
    "Sample",
    "captions_and_meta",
    "check_ends",
    "check_size",
    "contents_of",
    "load_pictures",
    "members_of",
    "picture_ending",
    "raw_sample",
    "read_member",
    "read_metas",
    "read_samples",
    "shard_paths",
    "write_shards",
]

TEXT_ENDINGS = ("txt", "json")
MAX_TEXT_BYTES = 2**22
"""Of a sample's caption or JSON."""
ABOUT = ("readme", "license", "licence", "notice")
"""Names of files that are about a tar; `README.txt` is no caption."""

Where = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class Sample:
    """One picture: uint8 RGB (H, W, 3), its first caption and all that is known about it."""

    key: str
    picture: NDArray[np.uint8]
    caption: str
    meta: dict[str, Any]

    @property
    def captions(self) -> list[str]:
        """All captions, the canonical one first."""
        others = [text for text in self.meta.get("captions", ()) if text != self.caption]
        return [self.caption, *others]


@dataclass(frozen=True)
class PictureSet:
    """A split in memory: pictures uint8 (N, 3, S, S), every picture's captions and meta."""

    pictures: NDArray[np.uint8]
    captions: list[list[str]]
    meta: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.captions)


def write_shards(
    folder: Path,
    split: str,
    samples: Iterable[tuple[str, bytes, str, dict[str, Any]]],
    *,
    per_shard: int = 2000,
) -> list[Path]:
    """Writes (key, PNG, caption, meta) samples as `SPLIT-00000.tar`, …; returns the paths.

    Keys are unique and without "." and "/" (UsageError). The same samples give the same bytes: members
    carry no time and no owner.
    """
    paths: list[Path] = []
    with contextlib.ExitStack() as stack:
        tar: tarfile.TarFile | None = None
        for number, (key, png, caption, meta) in enumerate(samples):
            if not key or "." in key or "/" in key:
                raise UsageError(
                    f"key {key!r} cannot name a sample: it must not be empty nor hold '.' or '/'."
                )
            if number % per_shard == 0:
                stack.close()
                paths.append(folder / f"{split}-{number // per_shard:05d}.tar")
                tar = stack.enter_context(tarfile.open(paths[-1], "w", format=tarfile.GNU_FORMAT))
            assert tar is not None
            document = json.dumps(meta, ensure_ascii=False, sort_keys=True)
            for ending, content in (("png", png), ("txt", caption.encode()), ("json", document.encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return paths


def shard_paths(folder: Path, split: str) -> list[Path]:
    """The shards of a split, `SPLIT-*.tar`, in order; where no tar is called train-…, all tars are "train".

    Raises FileRefused for a folder whose build was not finished, or that lacks what its `dataset.json` lists;
    UsageError where there are no shards of that split.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one with WebDataset tars (train-00000.tar, …).")
    found = check_whole(folder)
    named = [path for path in found if path.name.startswith(f"{split}-")]
    if not named and split == "train" and not any(path.name.startswith("train-") for path in found):
        named = found
    if not named:
        names = ", ".join(path.name for path in found[:4]) or "no tars at all"
        raise UsageError(f"{folder} has no shards {split}-*.tar (it has: {names}).")
    return named


def read_samples(path: Path, split: str = "train") -> Iterator[Sample]:
    """The samples of one tar, or of all shards of a split of a folder, in order.

    Raises FileRefused, naming shard and key, for a truncated tar, a broken picture, a caption that is not
    text or is missing, and as `shard_paths` does.
    """
    for raw in _read(path, split):
        yield Sample(raw.key, raw.array(), raw.captions[0], raw.meta)


def read_metas(path: Path, split: str = "train") -> Iterator[dict[str, Any]]:
    """Every sample's meta, no picture decoded. Raises as `read_samples`."""
    for raw in _read(path, split):
        yield raw.meta


def check_ends(shards: Iterable[Path]) -> None:
    """Raises FileRefused, naming all of them, for tars whose end is missing; only ends are read."""
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
    shard: Path, left_out: Counter[str] | None = None
) -> Iterator[tuple[BinaryIO, str, dict[str, Member]]]:
    """Runs of members with one key, as (the tar, key, {ending: member}); heads are read, no contents.

    A second member of one key and ending begins another sample. What belongs to no sample is counted in
    `left_out`: links and devices, hidden files (macOS writes `._NAME` beside each), files without an ending,
    webdataset's own `__NAME__.json`, a README, and what a sample has besides picture, caption and JSON.
    Raises FileRefused for a broken or truncated tar.
    """
    left_out = Counter() if left_out is None else left_out
    key = ""
    sample: dict[str, Member] = {}
    with _named_errors(shard, lambda: key), open_regular(shard) as tar:
        for member in members(tar):
            if member.kind == "folder" or not (parts := _key_and_ending(member, left_out)):
                continue
            if sample and (parts[0] != key or parts[1] in sample):
                if _is_sample(sample, left_out):
                    yield tar, key, sample
                sample = {}
            key = parts[0]
            sample[parts[1]] = member
        if sample and _is_sample(sample, left_out):
            yield tar, key, sample


def _key_and_ending(member: Member, left_out: Counter[str]) -> tuple[str, str] | None:
    """Which sample a member belongs to, and as what; None for none, which is counted."""
    parent, _, file = member.name.rpartition("/")
    stem, _, ending = file.partition(".")
    folders = [part for part in parent.split("/") if part not in (".", "..")]
    if member.kind != "file":
        left_out["links, devices and sparse files in tars"] += 1
    elif not stem or any(part.startswith((".", "__MACOSX")) for part in folders):
        left_out["hidden files in tars"] += 1
    elif not ending or (stem.startswith("__") and stem.endswith("__")) or stem.lower() in ABOUT:
        left_out["files about their tar"] += 1
    else:
        return (f"{parent}/{stem}" if parent else stem), ending.lower()
    return None


def _is_sample(sample: Mapping[str, Member], left_out: Counter[str]) -> bool:
    """Whether there is a picture or a caption; what else there is, is counted."""
    is_sample = any(ending in sample for ending in (*PICTURE_ENDINGS, "txt"))
    for ending in sample:
        if not is_sample or ending not in (*PICTURE_ENDINGS, *TEXT_ENDINGS):
            left_out[f"files in tars ending in .{ending}"] += 1
    return is_sample


def contents_of(shard: Path, *, skip: int = 0) -> Iterator[tuple[str, dict[str, bytes] | BrokenPicture]]:
    """The samples of a tar as (key, {ending: content}), the first `skip` left out without reading them.

    A sample with a member that is too large to be read gives a `BrokenPicture` instead.
    """
    for number, (tar, key, sample) in enumerate(members_of(shard)):
        if number < skip:
            continue
        wanted = {end: sample[end] for end in sample if end in (*PICTURE_ENDINGS, *TEXT_ENDINGS)}
        contents: dict[str, bytes] | BrokenPicture
        try:
            for member in wanted.values():
                check_size(shard, member)
            with _named_errors(shard, lambda key=key: key):  # type: ignore[misc]
                contents = {ending: read_member(tar, member) for ending, member in wanted.items()}
        except BrokenPicture as error:
            contents = error
        yield key, contents


def check_size(shard: Path, member: Member) -> None:
    """Raises `BrokenPicture` for a member that is larger than any picture or text."""
    limit = MAX_TEXT_BYTES if member.name.lower().endswith(TEXT_ENDINGS) else MAX_PICTURE_BYTES
    if member.size > limit:
        raise BrokenPicture(f"{shard}: {member.name} has {member.size:,} bytes; at most {limit:,} are read")


def read_member(tar: BinaryIO, member: Member) -> bytes:
    """A plain file's content, after `check_size`. Raises ValueError where it is cut off."""
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


@dataclass(frozen=True)
class RawSample:
    """A sample whose picture is still encoded."""

    shard: Path
    key: str
    captions: tuple[str, ...]
    """The caption, then others of the JSON's `captions`."""
    meta: dict[str, Any]
    content: bytes

    @property
    def encoded(self) -> EncodedPicture:
        """The picture, named by shard and key."""
        return EncodedPicture(f"{self.shard}: sample {self.key}", self.content)

    def array(self) -> NDArray[np.uint8]:
        """RGB (H, W, 3). Raises `BrokenPicture`."""
        return np.asarray(self.encoded.decode())


def _read(path: Path, split: str) -> Iterator[RawSample]:
    for shard in [path] if path.is_file() else shard_paths(path, split):
        for key, contents in contents_of(shard):
            if isinstance(contents, BrokenPicture):
                raise contents
            yield raw_sample(shard, key, contents)


def picture_ending(shard: Path, key: str, endings: Iterable[str]) -> str:
    """Which of a sample's members is its picture. Raises FileRefused where none is."""
    found = next((ending for ending in PICTURE_ENDINGS if ending in endings), None)
    if found is None:
        raise FileRefused(
            f"{shard}: sample {key} has no picture (.{', .'.join(PICTURE_ENDINGS)}), only {sorted(endings)}."
        )
    return found


def raw_sample(shard: Path, key: str, contents: Mapping[str, bytes]) -> RawSample:
    """A sample of its members' contents. Raises FileRefused: no picture or caption, or unreadable ones."""
    ending = picture_ending(shard, key, contents)
    captions, meta = captions_and_meta(shard, key, contents)
    return RawSample(shard, key, captions, meta, contents[ending])


def captions_and_meta(
    shard: Path, key: str, contents: Mapping[str, bytes]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Captions and meta of a sample, by its .txt and .json. Raises FileRefused."""
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
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise FileRefused(f"{shard}: sample {key}: `captions` in its JSON is not a list of texts.")
    try:
        return check_captions(
            [caption, *(other for other in others if other.strip() not in ("", caption))]
        ), meta
    except ValueError as error:
        raise FileRefused(f"{shard}: sample {key}: {error}.") from error


def load_pictures(folder: Path, split: str = "train", *, where: Where | None = None) -> PictureSet:
    """Decodes a whole split into memory; `where` chooses by a sample's meta before its picture is decoded.

    All pictures must be square and of one size S. Raises what `read_samples` raises, FileRefused for another
    shape or a shard that is not as its `dataset.json` lists it, UsageError where nothing is left.
    """
    if folder.is_dir():
        check_sums(folder, shard_paths(folder, split))
    pictures: list[NDArray[np.uint8]] = []
    captions: list[list[str]] = []
    metas: list[dict[str, Any]] = []
    for raw in _read(folder, split):
        if where is not None and not where(raw.meta):
            continue
        picture = raw.array()
        height, width, _ = picture.shape
        expected = pictures[0].shape[1] if pictures else height
        if not height == width == expected:
            raise FileRefused(
                f"{raw.shard}: sample {raw.key} is {width} x {height} pixels; all must be square"
                f" and of one size ({expected} x {expected} here). Resize them first."
            )
        pictures.append(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        captions.append(list(raw.captions))
        metas.append(raw.meta)
    if not pictures:
        raise UsageError(
            f"{folder} has no pictures of split {split}" + (" that were asked for." if where else ".")
        )
    return PictureSet(np.stack(pictures), captions, metas)
