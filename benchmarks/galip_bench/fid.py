"""FID of each subject's pictures, and how far it is from the reference's of the same seeds.

FID of few pictures is biased, and uncertain by far more than a good backend changes it. The change is
therefore measured in pairs (same prompts, same seeds), on disjoint sets of seeds whose spread gives it an
interval.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from galip_runtime.errors import QualityGateFailed, UsageError
from galip_runtime.text_to_image import TextToImage

from galip.data.layouts.folder import has_captions
from galip.metrics import Inception, Statistics, frechet_distance
from galip.metrics.features import extract_features
from galip.metrics.inception import PROTOCOLS
from galip.metrics.pictures import GeneratedPictures, captions_of, is_plain_folder
from galip.metrics.reference import Reference
from galip_bench.config import FID_SETS, BenchConfig
from galip_bench.prompts import PROMPTS
from galip_bench.report import FidParity, FidSettings
from galip_bench.statistics import student_t

if TYPE_CHECKING:
    from galip.progress import Count, Progress

__all__ = ["FidStudy", "compare_sets"]


class FidStudy:
    """Generates pictures with one subject after another and compares them. The reference comes first."""

    def __init__(self, config: BenchConfig, inception: Inception, side: int, progress: Progress) -> None:
        """`side`: size of the pictures in pixels; real ones are resized to it.

        Raises as `Reference` and `captions_of`.
        """
        self.config, self.inception, self.progress = config, inception, progress
        file = Path(config.captions) if config.captions else None
        self.against, captions, self.against_facts = None, [], None
        if config.against:
            reference = _open_reference(config, side, captioned=file is None)
            captions = list(reference.captions)
            real = reference.extract_features(
                inception=inception,
                batch_size=max(config.batch),
                progress=lambda done, count: progress("judging the real pictures", done, count),
            )
            self.against, self.against_facts = real.statistics, reference.facts()
            if len(self.against.mean) != inception.width:
                raise UsageError(
                    f"{config.against} has features of {len(self.against.mean)} numbers, Inception has "
                    f"{inception.width}; take statistics of the same network"
                )
        self.captions = captions_of(captions or PROMPTS, file, config.fid, config.seed)
        self.captions_from = "file" if file else "against" if captions else "galip_bench.prompts"
        self._reference: list[Statistics] = []

    def settings(self) -> FidSettings:
        """Return how FID is measured."""
        return FidSettings(
            pictures=self.config.fid,
            sets=FID_SETS,
            seeds=(self.config.seed, self.config.seed + self.config.fid - 1),
            captions=self.captions_from,
            against=self.against_facts,
            inception_sha256=self.inception.sha256,
            inception_view=PROTOCOLS[self.inception.protocol],
        )

    def measure(self, name: str, model: TextToImage) -> FidParity:
        """Return the FID of the subject `name`. The first subject becomes the reference.

        Raises `QualityGateFailed` if the reference's own pictures are not finite.
        """
        count, sets, not_finite = self.config.fid, [], 0
        for first, last in _parts(count):
            pictures = GeneratedPictures(model, self.captions[first:last], self.config.seed + first)
            judged = extract_features(
                pictures,
                last - first,
                inception=self.inception,
                clip=None,
                batch_size=max(self.config.batch),
                progress=_offset(first, count, f"pictures of {name} for FID", self.progress),
            )
            sets.append(judged.statistics)
            not_finite += pictures.not_finite
        if not_finite and not self._reference:
            raise QualityGateFailed(
                f"{name} itself gives NaN or infinity in {not_finite} of {count} pictures; nothing can be "
                "compared with it"
            )
        if not_finite:
            return FidParity(count, not_finite, None, None, None, None)
        self._reference = self._reference or sets
        return compare_sets(
            sets, self._reference, self.against, functools.partial(self.progress, f"distances of {name}")
        )


def compare_sets(
    sets: Sequence[Statistics],
    reference: Sequence[Statistics],
    against: Statistics | None,
    progress: Count = lambda done, total: None,
) -> FidParity:
    """Return the FID of `sets` of a subject's pictures, and its change from `reference`.

    Both have `FID_SETS` sets, of the same prompts and seeds. `progress` counts distances, which take seconds.
    """
    all_pictures, all_of_reference = _merged(sets), _merged(reference)
    if sets is reference:
        if against is None:
            return FidParity(all_pictures.count, 0, None, None, None, 0.0)
        return FidParity(all_pictures.count, 0, frechet_distance(all_pictures, against), 0.0, (0.0, 0.0), 0.0)
    pairs = [(all_pictures, all_of_reference)]
    if against is not None:
        pairs += [(own, against) for own in (all_pictures, all_of_reference, *sets, *reference)]
    distances: list[float] = []
    for pair in pairs:
        progress(len(distances), len(pairs))
        distances.append(frechet_distance(*pair))
    progress(len(pairs), len(pairs))
    direct, *fids = distances
    if not fids:
        return FidParity(all_pictures.count, 0, None, None, None, direct)
    fid, fid_of_reference, *of_sets = fids
    delta = fid - fid_of_reference
    changes = np.subtract(of_sets[: len(sets)], of_sets[len(sets) :])
    reach = student_t(len(changes) - 1) * float(np.std(changes, ddof=1)) / len(changes) ** 0.5
    return FidParity(all_pictures.count, 0, fid, delta, (delta - reach, delta + reach), direct)


def _merged(parts: Sequence[Statistics]) -> Statistics:
    total = Statistics(len(parts[0].mean))
    for part in parts:
        total.merge(part)
    return total


def _parts(count: int) -> list[tuple[int, int]]:
    """Return the first and the last number (exclusive) of each of `FID_SETS` sets of `count` pictures."""
    borders = [count * number // FID_SETS for number in range(FID_SETS + 1)]
    return list(itertools.pairwise(borders))


def _offset(first: int, count: int, what: str, progress: Progress) -> Callable[[int], object]:
    return lambda done: progress(what, first + done, count)


def _open_reference(config: BenchConfig, side: int, captioned: bool) -> Reference:
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
        raise UsageError(f"cannot read {path}: {error}; give another path") from error


def _has_captions(path: Path) -> bool:
    """Return whether `path` is a data set with captions, not only pictures or statistics."""
    return path.is_dir() and (not is_plain_folder(path) or has_captions(path))
