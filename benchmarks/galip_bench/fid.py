"""FID parity: how far a subject's pictures are from real ones, and from the reference's of the same seeds.

FID of few pictures is biased and uncertain by far more than a good backend changes it. What a backend changes
is measured in pairs (same prompts, same seeds), on disjoint sets of seeds, so that the change has an error of
its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.errors import QualityGateFailed, UsageError
from galip_runtime.text_to_image import TextToImage

from galip.data.layouts.folder import has_captions
from galip.metrics import Inception, Statistics, frechet_distance
from galip.metrics.features import extract_features
from galip.metrics.inception import PROTOCOLS
from galip.metrics.pictures import GeneratedPictures, captions_of, is_plain_folder
from galip.metrics.reference import Reference
from galip_bench.config import FID_SETS, BenchConfig, Progress
from galip_bench.prompts import PROMPTS
from galip_bench.summary import student_t

__all__ = ["FidParity", "FidStudy", "compare_sets"]


@dataclass(frozen=True)
class FidParity:
    """Of a subject. None where a picture is not finite, and where nothing to measure against was given."""

    pictures: int
    not_finite: int
    """Pictures with NaN or infinity, for which there is no FID."""
    fid: float | None
    """Against the real pictures."""
    delta: float | None
    """`fid` less the reference's `fid`."""
    delta_interval_95: tuple[float, float] | None
    """By Student's t, from the changes on disjoint sets of seeds."""
    direct: float | None
    """Between the subject's pictures and the reference's."""


class FidStudy:
    """Makes pictures of one subject after another and compares them; the reference comes first."""

    def __init__(self, config: BenchConfig, inception: Inception, side: int, progress: Progress) -> None:
        """`side`: of the pictures, pixels; stored ones are brought to it. Raises as `Reference` and
        `captions_of`.
        """
        self.config, self.inception, self.progress = config, inception, progress
        file = Path(config.captions) if config.captions else None
        self.against, known, self.facts_of_against = None, [], None
        if config.against:
            reference = _opened(config, side, captioned=file is None)
            known = list(reference.captions)
            seen = reference.extract_features(
                inception=inception,
                batch_size=max(config.batch),
                progress=lambda done, count: progress("judging the real pictures", done, count),
            )
            self.against, self.facts_of_against = seen.statistics, reference.facts()
            if len(self.against.mean) != inception.width:
                raise UsageError(
                    f"{config.against} is of features of {len(self.against.mean)} numbers, Inception's have "
                    f"{inception.width}; take statistics of the same network"
                )
        self.captions = captions_of(known or PROMPTS, file, config.fid, config.seed)
        self.captions_from = "file" if file else "against" if known else "galip_bench.prompts"
        self._reference: list[Statistics] = []

    def facts(self) -> dict[str, Any]:
        """How it was done, fit for JSON."""
        return {
            "pictures": self.config.fid,
            "sets": FID_SETS,
            "seeds": [self.config.seed, self.config.seed + self.config.fid - 1],
            "captions": self.captions_from,
            "against": self.facts_of_against,
            "inception_sha256": self.inception.sha256,
            "inception_view": PROTOCOLS[self.inception.protocol],
        }

    def measure(self, name: str, drawer: TextToImage) -> FidParity:
        """Of the subject `name`; the first one measured is the reference of all. Raises `QualityGateFailed`
        where that one's pictures are not finite.
        """
        count, sets, not_finite = self.config.fid, [], 0
        for first, last in _parts(count):
            drawn = GeneratedPictures(drawer, self.captions[first:last], self.config.seed + first)
            seen = extract_features(
                drawn,
                last - first,
                inception=self.inception,
                clip=None,
                batch_size=max(self.config.batch),
                progress=_from(first, count, f"pictures of {name} for FID", self.progress),
            )
            sets.append(seen.statistics)
            not_finite += drawn.not_finite
        if not_finite and not self._reference:
            raise QualityGateFailed(
                f"{name} itself gives NaN or infinity in {not_finite} of {count} pictures; nothing can be "
                "compared with it"
            )
        if not_finite:
            return FidParity(count, not_finite, None, None, None, None)
        self._reference = self._reference or sets
        computed = functools.partial(self.progress, f"distances of {name}")
        return compare_sets(sets, self._reference, self.against, computed)


def compare_sets(
    sets: Sequence[Statistics],
    reference: Sequence[Statistics],
    against: Statistics | None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> FidParity:
    """`FID_SETS` sets of a subject's pictures, and the reference's of the same prompts and seeds. A distance
    takes seconds: `progress` counts them.
    """
    whole, whole_reference = _merged(sets), _merged(reference)
    if sets is reference:
        if against is None:
            return FidParity(whole.count, 0, None, None, None, 0.0)
        return FidParity(whole.count, 0, frechet_distance(whole, against), 0.0, (0.0, 0.0), 0.0)
    pairs = [(whole, whole_reference)]
    if against is not None:
        pairs += [(each, against) for each in (whole, whole_reference, *sets, *reference)]
    found: list[float] = []
    for pair in pairs:
        progress(len(found), len(pairs))
        found.append(frechet_distance(*pair))
    progress(len(pairs), len(pairs))
    direct, *fids = found
    if not fids:
        return FidParity(whole.count, 0, None, None, None, direct)
    fid, fid_of_reference, *of_sets = fids
    delta = fid - fid_of_reference
    changes = np.subtract(of_sets[: len(sets)], of_sets[len(sets) :])
    reach = student_t(len(changes) - 1) * float(np.std(changes, ddof=1)) / len(changes) ** 0.5
    return FidParity(whole.count, 0, fid, delta, (delta - reach, delta + reach), direct)


def _merged(parts: Sequence[Statistics]) -> Statistics:
    whole = Statistics(len(parts[0].mean))
    for part in parts:
        whole.merge(part)
    return whole


def _parts(count: int) -> list[tuple[int, int]]:
    """First and last number (not included) of each of `FID_SETS` sets of `count` pictures."""
    borders = [count * number // FID_SETS for number in range(FID_SETS + 1)]
    return list(itertools.pairwise(borders))


def _from(first: int, count: int, what: str, progress: Progress) -> Callable[[int], None]:
    return lambda done: progress(what, first + done, count)


def _opened(config: BenchConfig, side: int, captioned: bool) -> Reference:
    path = Path(config.against)
    try:
        return Reference(
            path,
            split=config.split,
            exclude=config.exclude,
            size=side,
            captioned=captioned and _has_captions(path),
        )
    except PermissionError as error:
        raise UsageError(f"cannot read {path}: {error}; name another place") from error


def _has_captions(path: Path) -> bool:
    """Whether it is a data set with captions, not a mere folder of pictures or statistics."""
    return path.is_dir() and (not is_plain_folder(path) or has_captions(path))
