"""`galip evaluate`: a model, a bundle or a folder against a data set, a folder or statistics."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from galip_runtime.errors import UsageError
from galip_runtime.ray_cluster import connect

from galip.metrics import figures
from galip.metrics.clip_encoder import CLIP_PREPROCESSING, ClipEncoder
from galip.metrics.config import EvaluationConfig, check_metrics
from galip.metrics.features import (
    MAX_FEATURES_KEPT,
    Extract,
    PictureFeatures,
    all_reduce_sum,
    extract_features,
)
from galip.metrics.inception import PROTOCOLS, Inception
from galip.metrics.pictures import (
    GeneratedPictures,
    Pictures,
    StoredPictures,
    captions_of,
    check_broken,
    check_distinct_captions,
    check_finite,
    open_pictures,
)
from galip.metrics.reference import Reference
from galip.metrics.registry import METRICS, Needs, metrics_that_need
from galip.metrics.report import Report
from galip.metrics.subject import open_model
from galip.progress import Progress, no_progress
from galip.towers import load_towers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    config: EvaluationConfig, *, fabric: Fabric | None = None, progress: Progress = no_progress
) -> Report:
    """Evaluate `config.subject`. Started by torchrun with a launched `fabric`, processes share the pictures;
    with `config.ray` the machines of that cluster do.

    Raises `QualityGateFailed` with their number if pictures have NaN or infinity, `UsageError`,
    `FileRefused` and `ProviderUnavailable` for what can't be used, `ServiceUnavailable` for a cluster that
    does not answer.
    """
    start = time.monotonic()
    if config.ray:
        progress("connecting to Ray", 0, 1)
    with connect(config.ray) if config.ray else nullcontext():
        evaluation = Evaluation(config, fabric, progress)
        figures = evaluation.compute_figures()
    return Report(
        figures=figures,
        subject=evaluation.subject_facts,
        reference=evaluation.reference_facts,
        protocol=_protocol_facts(config, evaluation.inception, evaluation.clip),
        warnings=evaluation.warnings,
        seconds=time.monotonic() - start,
        versions={name: version(name) for name in ("galip", "torch", "numpy", "pillow")},
        config=asdict(config),
    )


class Evaluation:
    """What is evaluated, against what and with which networks, all opened."""

    def __init__(
        self, config: EvaluationConfig, fabric: Fabric | None = None, progress: Progress = no_progress
    ) -> None:
        """Open everything, and refuse mistakes before a picture is made."""
        self.config, self.fabric, self.progress = config, fabric, progress
        use_gpu = torch.cuda.is_available() and config.device != "cpu"
        self.device = fabric.device if fabric else torch.device("cuda" if use_gpu else "cpu")
        if config.threads:
            torch.set_num_threads(config.threads)
        self.warnings: list[str] = []
        self.model = open_model(config, self.device if fabric else None)
        size = config.size or (self.model.dimensions.image_height if self.model else None)
        self.reference = Reference(
            Path(config.against),
            split=config.split,
            layout=config.layout,
            size=size,
            exclude=config.exclude,
            captioned=bool(self.model and not config.captions) or self._needs(Needs.REFERENCE_EMBEDDINGS),
        )
        check_metrics(config, has_model=self.model is not None)
        self.subject = self._open_subject(size)
        self.count = min(config.count or len(self.subject), len(self.subject))
        self._check()
        self.inception = self._load_inception()
        self.clip = self._load_clip()
        self.subject_facts: dict[str, Any] = {}
        self.reference_facts: dict[str, Any] = {}

    def _names(self, needs: Needs) -> list[str]:
        """Return the metrics asked for that need any of `needs`."""
        return metrics_that_need(set(self.config.metrics), needs)

    def _needs(self, needs: Needs) -> bool:
        return bool(self._names(needs))

    def _open_subject(self, size: int | None) -> Pictures:
        config = self.config
        if self.model is None:
            return open_pictures(
                Path(config.subject),
                size=size,
                captioned=self._needs(Needs.EMBEDDINGS),
                skip_broken=True,
                plain=True,
            )
        file = Path(config.captions) if config.captions else None
        captions = captions_of(self.reference.captions, file, config.count or 10_000, config.seed)
        return GeneratedPictures(self.model, captions, config.seed)

    def _check(self) -> None:
        for name in self.config.metrics:
            if METRICS[name].min_captions:
                captions = self.subject.captions[: self.count]
                check_distinct_captions(captions, METRICS[name].min_captions, name)
        target = Path(self.config.save_statistics).absolute()
        if self.config.save_statistics and not target.parent.is_dir():
            raise UsageError(f"cannot write {target}: there is no folder {target.parent}; make it")

    def _load_inception(self) -> Inception | None:
        if not self._needs(Needs.STATISTICS | Needs.FEATURES):
            return None
        path = Path(self.config.inception) if self.config.inception else None
        return Inception(path, self.config.protocol, self.device)

    def _load_clip(self) -> ClipEncoder | None:
        if not self._needs(Needs.EMBEDDINGS | Needs.REFERENCE_EMBEDDINGS):
            return None
        if not self.config.clip:
            self.warnings.append("the CLIP that judges is the one the model was trained with")
        return _load_clip(self.config, self.device)

    def compute_figures(self) -> dict[str, float]:
        """Extract features of both sets of pictures and compute the metrics."""
        config, count = self.config, self.count
        subject = self._extract_subject()
        reference = self._extract_reference()
        if config.save_statistics:
            self.progress("writing the statistics", 0, 1)
        if config.save_statistics and (self.fabric is None or self.fabric.is_global_zero):
            subject.statistics.save(Path(config.save_statistics))
        inputs = figures.MetricInputs(
            subject=subject,
            reference=reference,
            captions=subject.kept(self.subject.captions[:count]),
            reference_captions=reference.kept(self.reference.captions)[: len(reference.embeddings)],
            clip=self.clip,
            model=self.model,
            seed=config.seed,
            batch_size=config.batch_size,
            warnings=self.warnings,
        )
        results: dict[str, float] = {}
        for name in METRICS:
            if name in config.metrics:
                stage = f"computing {name}"
                self.progress(stage, 0, 1)
                counted = replace(inputs, progress=partial(self.progress, stage))
                results |= getattr(figures, name)(counted)
        self.progress("done", 1, 1)
        return results

    def _extract_subject(self) -> PictureFeatures:
        config, count = self.config, self.count
        self._warn_of_many(count)
        features = self._extractor("subject")(
            self.subject,
            count,
            inception=self.inception,
            clip=self.clip,
            keep=self._needs(Needs.FEATURES),
            batch_size=config.batch_size,
            progress=lambda done: self.progress("evaluating pictures", done, count),
        )
        used = count - len(features.dropped)
        self.subject_facts = {"path": config.subject, "kind": self._kind(), "pictures": used}
        if isinstance(self.subject, StoredPictures):
            path, without = Path(config.subject), self.subject.without_caption
            broken = len(features.dropped) + without
            check_broken(path, broken, count + without, self.subject.examples)
            self._warn_of_left_out(path, self.subject, broken)
        if self.model:
            seeds = [config.seed, config.seed + count - 1]
            self.subject_facts |= {"seeds": seeds, "model": self.model.info()}
        if isinstance(self.subject, GeneratedPictures):
            check_finite(all_reduce_sum(self.subject.not_finite, self.fabric), count)
        return features

    def _extractor(self, which: str) -> Extract:
        """Return what extracts features of the `subject` or the `reference`: this machine, or a cluster."""
        if not self.config.ray:
            return partial(extract_features, fabric=self.fabric)
        from galip.metrics.ray_features import ClusterExtract

        return ClusterExtract(self, which)

    def _kind(self) -> str:
        if self.model is None:
            return "pictures"
        return "bundle" if Path(self.config.subject).is_dir() else "checkpoint"

    def _extract_reference(self) -> PictureFeatures:
        config = self.config
        needs = Needs.STATISTICS | Needs.FEATURES | Needs.REFERENCE_EMBEDDINGS
        count = config.reference_count if self._needs(needs) else 0
        self.reference_facts = self.reference.facts(count)
        if count == 0 and self.reference.pictures:
            return PictureFeatures.empty()
        if self.reference.pictures:
            self._warn_of_many(self.reference_facts["pictures"])
        features = self.reference.extract_features(
            config.reference_count,
            inception=self.inception,
            clip=self.clip if self._needs(Needs.REFERENCE_EMBEDDINGS) else None,
            keep=self._needs(Needs.FEATURES),
            batch_size=config.batch_size,
            fabric=self.fabric,
            extract=self._extractor("reference"),
            use_cache=config.cache,
            progress=lambda done, total: self.progress("evaluating the reference", done, total),
        )
        if pictures := self.reference.pictures:
            self.reference_facts["pictures"] -= len(features.dropped)
            broken = len(features.dropped) + pictures.without_caption
            self._warn_of_left_out(self.reference.path, pictures, broken)
        return features

    def _warn_of_left_out(self, path: Path, pictures: StoredPictures, broken: int) -> None:
        """Say how many pictures are broken, and what else of `path` is not used."""
        if broken:
            examples = f" ({'; '.join(pictures.examples)})" if pictures.examples else ""
            self.warnings.append(f"{path}: {broken} pictures are broken and left out{examples}")
        self.warnings += [f"{path}: {line}" for line in pictures.left_out.lines()]

    def _warn_of_many(self, count: int) -> None:
        if (names := self._names(Needs.FEATURES)) and count > MAX_FEATURES_KEPT:
            self.warnings.append(
                f"{', '.join(names)}: of the first {MAX_FEATURES_KEPT:,} of {count:,} pictures"
            )


def _load_clip(config: EvaluationConfig, device: torch.device) -> ClipEncoder:
    """Load the CLIP asked for, or the subject's own."""
    towers = load_towers(config.clip_source)
    return ClipEncoder(towers.text, towers.image, towers.config.text, config.protocol, device)


def _protocol_facts(
    config: EvaluationConfig, inception: Inception | None, clip: ClipEncoder | None
) -> dict[str, str]:
    """Return the protocol's name, what it does, and the networks, for the report."""
    name = config.protocol
    facts = {"name": name}
    if inception:
        facts |= {"inception_view": PROTOCOLS[name], "inception_sha256": inception.sha256}
    if clip:
        facts |= {"clip_view": CLIP_PREPROCESSING[name], "clip": config.clip or "the model's own"}
        facts["clip_sha256"] = clip.sha256()
    return facts
