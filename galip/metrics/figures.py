"""The metrics, a function each: from what was extracted of the pictures to the figures of a report.

A function has the name of its line in `registry.METRICS`, and returns figures by name. Shapes: N pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from galip_runtime.errors import UsageError
from galip_runtime.text_to_image import TextToImage

from galip.metrics import distances
from galip.metrics.clip_encoder import ClipEncoder, retrieval_accuracy
from galip.metrics.features import PictureFeatures
from galip.metrics.inception import quantize
from galip.metrics.pictures import GeneratedPictures, batches, check_finite
from galip.metrics.psnr import psnr
from galip.metrics.statistics import Statistics
from galip.progress import Count

__all__ = [
    "MetricInputs",
    "clip_score",
    "fid",
    "fid_real",
    "kid",
    "precision_recall",
    "retrieval",
    "seed_psnr",
]

PSNR_PROMPTS = 200
_EQUAL_PICTURES = 10 * math.log10(255**2 / 1e-6)
"""dB of equal pictures, so that the mean stays finite"""


@dataclass(frozen=True)
class MetricInputs:
    """What metrics are computed from; what no metric asked for is empty or None."""

    subject: PictureFeatures
    reference: PictureFeatures
    captions: Sequence[str]
    """Of the subject's pictures."""
    reference_captions: Sequence[str]
    clip: ClipEncoder | None
    model: TextToImage | None
    """The subject, if it generates pictures."""
    seed: int
    batch_size: int
    warnings: list[str] = field(default_factory=list)
    """A metric may add to them."""
    progress: Count = lambda done, total: None
    """A metric that generates pictures counts them."""


def fid(inputs: MetricInputs) -> dict[str, float]:
    """Fréchet distance of Inception's features."""
    ours, theirs = inputs.subject.statistics, inputs.reference.statistics
    distance = distances.frechet_distance(ours, theirs)
    if min(ours.count, theirs.count) < 2 * len(ours.mean):
        inputs.warnings.append(
            f"FID of {ours.count} against {theirs.count} pictures is biased upwards; compare it only with "
            "figures of the same numbers"
        )
    return {"fid": distance}


def fid_real(inputs: MetricInputs) -> dict[str, float]:
    """FID between the two halves of the reference, and between its first half and as many of ours: figures of
    equal numbers of pictures, which can be compared.
    """
    ours, theirs = inputs.subject.features, inputs.reference.features  # each (N, F)
    half = len(theirs) // 2
    if half < 2 or len(ours) < half:
        raise UsageError(
            f"fid_real halves the reference's pictures; {len(theirs)} are too few, or {len(ours)} of the "
            "subject; give more (--count)"
        )
    first, second, generated = (Statistics.of(rows[:half]) for rows in (theirs, theirs[half:], ours))
    return {
        "fid_real": distances.frechet_distance(first, second),
        "fid_half": distances.frechet_distance(generated, first),
    }


def kid(inputs: MetricInputs) -> dict[str, float]:
    """Kernel distance of Inception's features, and its standard deviation over subsets."""
    mean, deviation = distances.kernel_distance(inputs.subject.features, inputs.reference.features)
    # with so few pictures that every subset has all of them there is no deviation
    return {"kid": mean, "kid_std": deviation} if deviation else {"kid": mean}


def precision_recall(inputs: MetricInputs) -> dict[str, float]:
    """Improved precision and recall of Inception's features."""
    precision, recall = distances.precision_recall(inputs.reference.features, inputs.subject.features)
    return {"precision": precision, "recall": recall}


def clip_score(inputs: MetricInputs) -> dict[str, float]:
    """Mean cosine of CLIP's embeddings of pictures and captions."""
    assert inputs.clip is not None
    captions = inputs.clip.embed_captions(inputs.captions)
    return {"clip_score": float((inputs.subject.embeddings * captions).sum(axis=1).mean())}


def retrieval(inputs: MetricInputs) -> dict[str, float]:
    """Share of pictures whose own caption is the nearest of 100; the reference's, too, if it has captions."""
    assert inputs.clip is not None
    captions = inputs.captions
    embeddings = inputs.clip.embed_captions(captions)
    figures = {"retrieval": retrieval_accuracy(inputs.subject.embeddings, embeddings, captions)}
    if captions := inputs.reference_captions:
        embeddings = inputs.clip.embed_captions(captions)
        accuracy = retrieval_accuracy(inputs.reference.embeddings, embeddings, captions)
        figures["retrieval_real"] = accuracy
    return figures


def seed_psnr(inputs: MetricInputs) -> dict[str, float]:
    """Mean PSNR (dB, of 8 bits) between the pictures of one caption from two seeds."""
    assert inputs.model is not None
    captions = list(dict.fromkeys(inputs.captions))[:PSNR_PROMPTS]
    sets = [GeneratedPictures(inputs.model, captions, seed) for seed in (inputs.seed, 2**32 + inputs.seed)]
    values: list[float] = []
    for indices, a in batches(sets[0], range(len(captions)), inputs.batch_size):
        b = sets[1].batch(indices)
        inputs.progress(len(indices) + len(values), len(captions))
        check_finite(sets[0].not_finite + sets[1].not_finite, 2 * len(captions))
        decibels = psnr(quantize(a).cpu().numpy(), quantize(b).cpu().numpy(), 255)
        values += np.minimum(decibels, _EQUAL_PICTURES).tolist()
    return {"seed_psnr": float(np.mean(values))}
