"""The options of `generate_set`, their checks and the help of both commands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.errors import UsageError

__all__ = ["FORMATS", "HELP", "LAYOUTS", "MAX_SHARD_SIZE", "SetOptions", "parse_seeds"]

FORMATS: Mapping[str, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
"""Formats of the pictures and Pillow's names for them. The key is the ending of a file, too."""
LAYOUTS = ("webdataset", "folder")
MAX_SHARD_SIZE = 100_000
"""The most pictures in a shard: a killed worker loses as much."""
_MAX_SEEDS = 1_000_000
_MAX_SEED = 2**64 - 1  # as in galip_runtime.noise, which needs numpy
_SEEDS = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)

HELP: Mapping[str, str] = {
    "prompts": "The prompts: .txt (one a line), .jsonl, .csv or .parquet.",
    "out": "Folder of the set. If it holds a part of the same set, the rest is generated.",
    "count": "Pictures of each prompt.",
    "seeds": "These seeds for every prompt: 1,2,3 or 1-8.",
    "seed": "Picture i of the set has seed S + i. Default: 0. A prompt's own seed takes precedence.",
    "truncation": "Truncate the noise at ±T, about 0.5 to 2: plainer pictures, less variety.",
    "bundle": "Bundle folder. Default: the shipped model's.",
    "device": "The device to run on. A device other than auto is used, or the command fails.",
    "precision": "auto, or a precision that the bundle has.",
    "threads": "CPU threads of each worker. Default: the CPUs divided among the workers; one with --ray.",
    "shard_size": "Pictures in a shard, the part that is written as a whole.",
    "format": f"Format of the pictures: {', '.join(FORMATS)}.",
    "layout": "webdataset: tars. folder: folders of pictures, with a captions.jsonl each.",
    "workers": "Worker processes on this machine. Default: one for every two CPUs, at most 8; on a GPU, one.",
    "ray": "Use a Ray cluster: auto, local or HOST:PORT.",
    "json": "Print the result as JSON.",
}


@dataclass(frozen=True)
class SetOptions:
    """The options of a set of pictures. Raises UsageError for values that cannot be used."""

    prompts: Path
    """.txt, .jsonl, .csv or .parquet"""
    out: Path
    """the folder to write to"""
    count: int = 1
    """pictures of each prompt"""
    seeds: tuple[int, ...] | None = None
    """seeds for every prompt, instead of `count`"""
    seed: int | None = None
    """picture i has seed `seed` + i; None for 0"""
    truncation: float | None = None
    """where to cut the noise; None for nowhere"""
    bundle: Path | None = None
    """None for the shipped model's"""
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    """CPU threads of each worker"""
    shard_size: int = 1000
    """pictures in a shard"""
    format: str = "png"
    """one of `FORMATS`"""
    layout: str = "webdataset"
    """one of `LAYOUTS`"""
    workers: int | None = None
    """processes on this machine; None for a choice by CPUs and device"""
    ray: str | None = None
    """address of a Ray cluster, instead of `workers`"""

    def __post_init__(self) -> None:
        _check_whole(self.count, "count", 1, _MAX_SEEDS)
        _check_whole(self.shard_size, "shard size", 1, MAX_SHARD_SIZE)
        for name, value, most in (("threads", self.threads, 4096), ("workers", self.workers, 1024)):
            if value is not None:
                _check_whole(value, name, 1, most)
        for seed in () if self.seed is None else (self.seed,):
            _check_whole(seed, "seed", 0, _MAX_SEED)
        _check_one_of(self.format, "format", tuple(FORMATS))
        _check_one_of(self.layout, "layout", LAYOUTS)
        if self.workers is not None and self.ray is not None:
            raise UsageError(
                "give workers or ray, not both: Ray starts as many workers as the cluster has room for"
            )
        if self.seeds is not None:
            self._check_seeds(self.seeds)

    def _check_seeds(self, seeds: tuple[int, ...]) -> None:
        if self.seed is not None or self.count != 1:
            raise UsageError(
                "give seeds alone: they say how many pictures each prompt has and from which seeds"
            )
        if not seeds or len(set(seeds)) != len(seeds):
            raise UsageError(
                "seeds must be at least one, and each only once: the same seed is the same picture"
            )
        for seed in seeds:
            _check_whole(seed, "each of the seeds", 0, _MAX_SEED)

    @property
    def first_seed(self) -> int:
        """The seed of picture 0 where neither a prompt nor `seeds` says which."""
        return self.seed or 0


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Return the seeds of a command line, such as `1,2,3`, `1-8` or `1-4,9`; None for None.

    Raises UsageError for anything else and for more than a million.
    """
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if not match:
            raise UsageError(f"seeds must be whole numbers such as 1,2,3 or 1-8, not {text!r:.80}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"seeds {part.strip()}: the range ends before it begins; write {last}-{first}")
        if len(seeds) + last - first >= _MAX_SEEDS:
            raise UsageError(f"seeds {text!r:.80}: at most {_MAX_SEEDS:,} are allowed for each prompt")
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


def _check_whole(value: object, name: str, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {value!r:.80}")


def _check_one_of(value: str, name: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} {value!r:.80} is unknown; use one of {', '.join(known)}")
