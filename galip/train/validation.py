"""FID and CLIP score of the averaged generator while it trains, and the best checkpoint by FID."""

from __future__ import annotations

from pathlib import Path

from galip_runtime.errors import QualityGateFailed

from galip.checkpoint import save_galip
from galip.eager import EagerModel
from galip.metrics.clip_scores import ClipJudge
from galip.metrics.distances import frechet_distance
from galip.metrics.inception import Inception
from galip.metrics.look import look, total
from galip.metrics.pictures import Drawn, captions_of, open_pictures
from galip.metrics.statistics import Statistics
from galip.train.checkpointing import checkpoint_note
from galip.train.config import GanConfig
from galip.train.run import Run
from galip.train.trainer import Trainer

__all__ = ["Validation"]

REFERENCES = 10_000
"""Real pictures that FID compares with at most."""


class Validation:
    """Judges the generator against the same real pictures every time, by the same captions and seeds."""

    def __init__(self, config: GanConfig, trainer: Trainer, run: Run) -> None:
        """Looks at the real pictures. Raises `UsageError` and `FileRefused` for what can't be used, and
        `ProviderUnavailable` without Inception's weights.
        """
        self.config, self.trainer, self.run = config, trainer, run
        model, self.fabric = trainer.model, trainer.fabric
        self.drawer = EagerModel(model, str(self.fabric.device))
        model.train()
        self.inception = Inception(device=self.fabric.device)
        text = model.config.clip.text
        self.clip = ClipJudge(model.text, model.image, text, device=self.fabric.device)
        against = Path(config.evaluate_against or config.data)
        if against.suffix.lower() == ".npz":
            self.reference, known = Statistics.load(against), []
        else:
            pictures = open_pictures(
                against,
                split=config.evaluate_split,
                layout="auto" if config.evaluate_against else config.layout,
                size=model.config.generator.image_size,
                exclude=config.exclude,
                captioned=True,
                skip_broken=True,
            )
            known = list(pictures.captions)
            run.echo(f"looking at {min(len(pictures), REFERENCES)} pictures of {against} for FID")
            seen = look(
                pictures,
                min(len(pictures), REFERENCES),
                inception=self.inception,
                clip=None,
                fabric=self.fabric,
            )
            self.reference = seen.statistics
            if broken := total(pictures.broken, self.fabric):
                run.echo(f"{broken} of them are broken and left out")
        known = known or trainer.loader.sample_captions(config.evaluate_count)
        self.captions = captions_of(known, None, config.evaluate_count, config.seed)

    def run_at(self, step: int) -> dict[str, float]:
        """FID and CLIP score after `step` steps, logged; the best checkpoint by FID is `best.safetensors`.

        Raises `QualityGateFailed` for pictures that are not finite. Every process calls this.
        """
        trainer = self.trainer
        drawn = Drawn(self.drawer, self.captions)
        with trainer.ema.applied(trainer.model.generator):
            seen = look(drawn, len(drawn), inception=self.inception, clip=self.clip, fabric=self.fabric)
            if broken := total(drawn.not_finite, self.fabric):
                raise QualityGateFailed(
                    f"{broken} of {len(drawn)} pictures have NaN or infinity after step {step}; the last "
                    "good state is kept. Resume with a lower learning rate"
                )
            embedded = self.clip.of_captions(self.captions)
            figures = {
                "fid": frechet_distance(seen.statistics, self.reference),
                "clip_score": float((seen.embeddings * embedded).sum(axis=1).mean()),
            }
            trainer.validated_step = step
            if not trainer.best or figures["fid"] < trainer.best["fid"]:
                trainer.best = {"step": step, **figures}
                if self.fabric.is_global_zero:
                    note = {**checkpoint_note(trainer, step), "figures": figures}
                    save_galip(self.run.out / "best.safetensors", trainer.model, note=note)
        if self.fabric.is_global_zero:
            self.run.log.log_figures(figures, step)
        return figures
