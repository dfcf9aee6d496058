"""Validation in training: FID and CLIP score of the averaged generator, and the best checkpoint by FID."""

from __future__ import annotations

from pathlib import Path

from galip_runtime.errors import QualityGateFailed

from galip.checkpoint import save_galip
from galip.eager import EagerModel
from galip.metrics.clip_encoder import ClipEncoder
from galip.metrics.distances import frechet_distance
from galip.metrics.features import all_reduce_sum, extract_features
from galip.metrics.inception import Inception
from galip.metrics.pictures import GeneratedPictures, captions_of, open_pictures
from galip.metrics.statistics import Statistics
from galip.train.checkpointing import checkpoint_note
from galip.train.config import GanConfig
from galip.train.run import Run
from galip.train.trainer import Trainer

__all__ = ["BEST", "Validation"]

BEST = "best.safetensors"
"""The checkpoint with the lowest FID so far, in the run's folder."""

MAX_REFERENCES = 10_000
"""Real pictures that FID compares with at most."""


class Validation:
    """Compares the generator with the same real pictures every time, by the same captions and seeds."""

    def __init__(self, config: GanConfig, trainer: Trainer, run: Run) -> None:
        """Extract features of the real pictures. Raises `UsageError` and `FileRefused` for what can't be
        used, and `ProviderUnavailable` without Inception's weights.
        """
        self.config, self.trainer, self.run = config, trainer, run
        model, self.fabric = trainer.model, trainer.fabric
        self.model = EagerModel(model, str(self.fabric.device))
        model.train()
        self.inception = Inception(device=self.fabric.device)
        text = model.config.clip.text
        self.clip = ClipEncoder(model.text, model.image, text, device=self.fabric.device)
        against = Path(config.evaluate_against or config.data)
        if against.suffix.lower() == ".npz":
            self.reference, known = Statistics.load(against), list[str]()
        else:
            self.reference, known = self._extract_reference(against)
        known = known or trainer.loader.sample_captions(config.evaluate_count)
        self.captions = captions_of(known, None, config.evaluate_count, config.seed)

    def _extract_reference(self, against: Path) -> tuple[Statistics, list[str]]:
        """Return the statistics and the captions of the real pictures."""
        config = self.config
        pictures = open_pictures(
            against,
            split=config.evaluate_split,
            layout="auto" if config.evaluate_against else config.layout,
            size=self.trainer.model.config.generator.image_size,
            exclude=config.exclude,
            captioned=True,
            skip_broken=True,
        )
        count = min(len(pictures), MAX_REFERENCES)
        self.run.echo(f"extracting features of {count} pictures of {against} for FID")
        features = extract_features(pictures, count, inception=self.inception, clip=None, fabric=self.fabric)
        broken = all_reduce_sum(pictures.broken, self.fabric) + pictures.without_caption
        if broken:
            self.run.echo(f"{broken} of {against} are broken and left out")
        return features.statistics, list(pictures.captions)

    def run_at(self, step: int) -> dict[str, float]:
        """Compute and log FID and CLIP score after `step` steps; keep the best checkpoint by FID as
        `best.safetensors`.

        Raises `QualityGateFailed` for pictures that are not finite. Every process calls this.
        """
        trainer = self.trainer
        pictures = GeneratedPictures(self.model, self.captions)
        with trainer.ema.applied(trainer.model.generator):
            features = extract_features(
                pictures, len(pictures), inception=self.inception, clip=self.clip, fabric=self.fabric
            )
            if broken := all_reduce_sum(pictures.not_finite, self.fabric):
                raise QualityGateFailed(
                    f"{broken} of {len(pictures)} pictures have NaN or infinity after step {step}; the last "
                    "good state is kept. Resume with a lower learning rate"
                )
            captions = self.clip.embed_captions(self.captions)
            figures = {
                "fid": frechet_distance(features.statistics, self.reference),
                "clip_score": float((features.embeddings * captions).sum(axis=1).mean()),
            }
            trainer.validated_step = step
            if not trainer.best or figures["fid"] < trainer.best["fid"]:
                trainer.best = {"step": step, **figures}
                if self.fabric.is_global_zero:
                    note = {**checkpoint_note(trainer, step), "figures": figures}
                    save_galip(self.run.out / BEST, trainer.model, note=note)
        if self.fabric.is_global_zero:
            self.run.log.log_figures(figures, step)
        return figures
