"""WebDataset tars of captioned pictures: write them and read their samples.

`shard_reader` says what a sample consists of.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.errors import UsageError
from numpy.typing import NDArray

from galip.data.decode import BrokenPicture
from galip.data.shard_folder import check_whole
from galip.data.shard_reader import RawSample, contents_of, raw_sample

__all__ = [
    "Sample",
    "read_metas",
    "read_samples",
    "shard_paths",
    "write_shards",
]


@dataclass(frozen=True)
class Sample:
    """A decoded sample: picture uint8 RGB (H, W, 3), first caption, and everything known about it."""

    key: str
    picture: NDArray[np.uint8]
    caption: str
    meta: dict[str, Any]

    @property
    def captions(self) -> list[str]:
        """All captions, the canonical one first."""
        others = [text for text in self.meta.get("captions", ()) if text != self.caption]
        return [self.caption, *others]


def write_shards(
    folder: Path,
    split: str,
    samples: Iterable[tuple[str, bytes, str, dict[str, Any]]],
    *,
    per_shard: int = 2000,
) -> list[Path]:
    """Write (key, PNG, caption, meta) samples as `SPLIT-00000.tar`, …; returns the paths.

    Keys are unique and have no "." and "/" (UsageError). The same samples give the same bytes: members
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
    """Return the shards of a split, `SPLIT-*.tar`, in order; without any train-….tar, all tars are "train".

    Raises FileRefused for a folder whose build was not finished, or that lacks what its `dataset.json` lists;
    UsageError if there are no shards of that split.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one with WebDataset tars (train-00000.tar, …).")
    tars = check_whole(folder)
    shards = [path for path in tars if path.name.startswith(f"{split}-")]
    if not shards and split == "train" and not any(path.name.startswith("train-") for path in tars):
        shards = tars
    if not shards:
        names = ", ".join(path.name for path in tars[:4]) or "no tars at all"
        raise UsageError(f"{folder} has no shards {split}-*.tar (it has: {names}).")
    return shards


def read_samples(path: Path, split: str = "train") -> Iterator[Sample]:
    """Yield the samples of one tar, or of all shards of a split of a folder, in order.

    Raises FileRefused, naming shard and key, for a truncated tar, a broken picture, a caption that is not
    text or is missing, and as `shard_paths` does.
    """
    for raw in _read(path, split):
        yield Sample(raw.key, raw.array(), raw.captions[0], raw.meta)


def read_metas(path: Path, split: str = "train") -> Iterator[dict[str, Any]]:
    """Yield every sample's meta without decoding pictures. Raises as `read_samples`."""
    for raw in _read(path, split):
        yield raw.meta


def _read(path: Path, split: str) -> Iterator[RawSample]:
    for shard in [path] if path.is_file() else shard_paths(path, split):
        for key, contents in contents_of(shard):
            if isinstance(contents, BrokenPicture):
                raise contents
            yield raw_sample(shard, key, contents)
