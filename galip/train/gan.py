"""GALIP's training (`galip train`): the paper's losses, Adam, an EMA of the generator.

One step makes the fakes once and runs CLIP once on them and once on the real pictures; both updates use
those features. What departs from GALIP (off by default): the paired warm-up and the range penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from galip_runtime.errors import QualityGateFailed, UsageError
from galip_runtime.noise import noise as noise_of_seeds
from torch import Tensor

from galip import losses
from galip.checkpoint import is_ours, load_clip, load_galip, load_weights, read_info, save_galip
from galip.clip import ImageTower, TextTower, build_clip, clip_tokenizer
from galip.config import ClipConfig, GalipConfig, preset
from galip.convert import clip_state_dict
from galip.model import Galip
from galip.train import parallel
from galip.train.augment import pose, pose_from_noise, random_offset, shift, to_float
from galip.train.config import GanConfig
from galip.train.pictures import TrainingPictures
from galip.train.run import EMA, Batches, Run, autocast, choose_device, generator_for, save_grid

__all__ = ["Trainer", "train"]

WARMUP_BETAS = (0.9, 0.99)
"""Adam's decays in the warm-up, a plain regression; the paper's (0, 0.9) are for the adversarial game."""


def train(config: GanConfig, *, resume: bool = False, echo: Callable[[str], None] = print) -> Path:
    """Train GALIP; returns the path of `model.safetensors` (EMA generator, towers, discriminator).

    Raises `TrainingStopped` after a stop signal (the state is saved), `QualityGateFailed` when a loss
    becomes NaN or collapses (the last good state is kept), `UsageError` or `FileRefused` for data or a
    CLIP that doesn't fit.
    """
    parallel.start()
    parallel.check_batch(config.batch_size)
    model = _fresh_model(config)
    text = model.config.clip.text
    tokenizer = clip_tokenizer(text.merges, text.context_length)
    data = TrainingPictures(
        Path(config.data), "train", model.config.generator.image_size, tokenizer, config.exclude
    )
    with Run(Path(config.out), config, resume=resume, log_every=config.log_every, echo=echo) as run:
        trainer = Trainer(config, model, data)
        counts = (
            sum(p.numel() for p in part.parameters() if p.requires_grad) / 1e6
            for part in (model.generator, model.discriminator)
        )
        run.echo(
            "{} pictures, {:.2f} M learned in the generator, {:.2f} M in the discriminator".format(
                len(data), *counts
            )
        )
        start = run.restore(trainer.restore)
        run.loop(
            start,
            config.steps,
            config.batch_size,
            config.save_every,
            trainer.step,
            lambda done: _save(run, trainer, done),
        )
    return Path(config.out) / "model.safetensors"


def _fresh_model(config: GanConfig) -> Galip:
    wanted = preset(config.preset)
    text, image = _towers(config.clip, wanted.clip)
    torch.manual_seed(config.seed)
    model = Galip(wanted)
    if config.init:
        _begin_with(model, Path(config.init))
    model.use_towers(text, image)
    return model


def _towers(source: str, wanted: ClipConfig) -> tuple[TextTower, ImageTower]:
    """CLIP from one of our checkpoints, a state-dict file or an open_clip tag, in the shape of `wanted`."""
    if not is_ours(Path(source)):
        clip = build_clip(wanted)
        weights = clip_state_dict(source)
        load_weights(clip, {"logit_scale": clip.logit_scale.detach(), **weights}, source)
        return TextTower(clip), ImageTower(clip.visual, wanted, "clip")
    info = read_info(Path(source))
    found = info.config.clip if isinstance(info.config, GalipConfig) else info.config
    if found != wanted:
        raise UsageError(f"{source} has towers {found}, the preset wants {wanted}; give those trained for it")
    if info.kind == "galip":
        model = load_galip(Path(source), needs=("text", "image"))
        return model.text, model.image
    clip, _ = load_clip(Path(source))
    return TextTower(clip), ImageTower(clip.visual, wanted, "clip")


def _begin_with(model: Galip, path: Path) -> None:
    """Take the generator of the checkpoint at `path`, and its discriminator if it has one, into `model`."""
    other = load_galip(path)
    if other.config != model.config:
        raise UsageError(f"{path} has another shape than the preset: {other.config}")
    model.generator.load_state_dict(other.generator.state_dict())
    if other.discriminator is not None:
        model.discriminator.load_state_dict(other.discriminator.state_dict())


def _save(run: Run, trainer: Trainer, step: int) -> None:
    """The model and a grid of samples, both with the averaged generator; then the state for resume.

    The state comes last: a save that is cut short is done again when the run is resumed.
    """
    trainer.check_health()
    if not parallel.is_lead():
        return
    state = trainer.state(step)
    run.check_finite(state)
    with trainer.ema.applied(trainer.model.generator):
        note = {
            "train": asdict(trainer.config),
            "step": step,
            "pictures_seen": step * trainer.config.batch_size,
        }
        save_galip(run.out / "model.safetensors", trainer.model, note=note)
        save_grid(trainer.samples(), run.out / "samples" / f"{step:07}.png", columns=Trainer.SAMPLE_SEEDS)
    run.save_state(state)


class Trainer:
    """Model, optimizers and EMA, and one training step; everything that `state` saves."""

    SAMPLE_SEEDS = 4
    HISTORY = 200  # steps that the health check looks back

    def __init__(self, config: GanConfig, model: Galip, data: TrainingPictures) -> None:
        self.config, self.model, self.data = config, model.train(), data
        model.text.eval()
        model.image.eval()
        self.device = choose_device(config.device)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batches = Batches(len(data), config.batch_size, config.seed)
        self.trainable = [p for p in model.generator.parameters() if p.requires_grad]
        betas = (config.beta1, config.beta2)
        self.optimizer_g = torch.optim.Adam(self.trainable, lr=config.lr_g, betas=betas)
        self.optimizer_d = torch.optim.Adam(model.discriminator.parameters(), lr=config.lr_d, betas=betas)
        self.ema = EMA(model.generator, config.ema_decay)
        self._hinge: list[float] = []
        self._spread: list[float] = []

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of the discriminator and one of the generator; the scalars to log."""
        config, model = self.config, self.model
        warming_up = step < config.warmup_steps
        self._use_rates(step)
        rng = generator_for(config.seed, "gan", step)
        whole = self.batches[step]
        noise = torch.randn(len(whole), model.config.generator.noise_dim, generator=rng)
        tokens = parallel.my_rows(self.data.tokens(whole, rng)).to(self.device)  # (N, L)
        indices, noise = parallel.my_rows(whole), parallel.my_rows(noise).to(self.device)  # (N), (N, Z)
        real = self._real(indices, noise, rng)  # (N, 3, H, W)
        with autocast(config.precision, self.device):
            with torch.no_grad():
                sentence = model.text(tokens).float()  # (N, D)
            fake = model.generator(noise, sentence).float()  # (N, 3, H, W)
            if warming_up:
                scalars = self._warm_up(real, fake)
            else:
                scalars = self._adversarial_step(
                    step, real, fake, sentence, random_offset(config.clip_shift, rng)
                )
        self.ema.update(model.generator, step)
        return scalars

    def _use_rates(self, step: int) -> None:
        """The config's learning rates and decays, which may be others than a resumed run's."""
        config = self.config
        lr, betas = config.lr_g, (config.beta1, config.beta2)
        if step < config.warmup_steps:  # half a cosine from the warm-up's rate down to the game's
            lr += (config.warmup_lr - lr) * 0.5 * (1 + math.cos(math.pi * step / config.warmup_steps))
            betas = WARMUP_BETAS
        for group in self.optimizer_g.param_groups:
            group.update(lr=lr, betas=betas)
        for group in self.optimizer_d.param_groups:
            group.update(lr=config.lr_d, betas=betas)

    def _warm_up(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        pixel = _pixel_distance(fake, real)
        self._descend(self.config.paired_pixel_weight * pixel)
        self._note_spread(fake)
        return {"pixel": pixel}

    def _note_spread(self, fake: Tensor) -> None:
        self._spread = [*self._spread[1 - self.HISTORY :], float(fake.detach().std(dim=0).mean())]

    def _descend(self, loss: Tensor) -> None:
        self.optimizer_g.zero_grad()
        loss.backward()
        parallel.average_gradients(self.trainable)
        self.optimizer_g.step()

    def _adversarial_step(
        self, step: int, real: Tensor, fake: Tensor, sentence: Tensor, offset: tuple[int, int]
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            real_maps, _ = self.model.collect(shift(real, offset))
        fake_maps, embedding = self.model.collect(shift(fake, offset))
        scalars = self._update_discriminator(real_maps, fake_maps, sentence)
        scalars |= self._update_generator(step, real, fake, real_maps, fake_maps, embedding, sentence)
        self._hinge = [
            *self._hinge[1 - self.HISTORY :],
            float((scalars["d_real"] + scalars["d_fake"]).detach()),
        ]
        self._note_spread(fake)
        return scalars

    def _real(self, indices: Tensor, noise: Tensor, rng: torch.Generator) -> Tensor:
        real = to_float(self.data.pictures[indices].to(self.device))
        if self.config.pose:
            return pose(real, pose_from_noise(noise))
        whole = torch.rand(self.config.batch_size, 1, 1, 1, generator=rng)
        mirrored = parallel.my_rows(whole).to(self.device) < 0.5
        return torch.where(mirrored, real.flip(3), real)

    def _update_discriminator(
        self, real_maps: list[Tensor], fake_maps: list[Tensor], sentence: Tensor
    ) -> dict[str, Tensor]:
        """L_D of equation 1; Mate-D runs once on the real pictures, for their own and rolled sentences."""
        discriminator = self.model.discriminator
        features: list[Tensor] = []

        def discriminate(maps: list[Tensor], e: Tensor) -> Tensor:
            features.append(discriminator.mate(maps))
            return discriminator.assessor(features[0], e)

        real_logits, norm = losses.magp_norm(discriminate, real_maps, sentence)
        mismatched = discriminator.assessor(features[0], sentence.roll(-1, dims=0))
        fake_logits = discriminator([feature.detach() for feature in fake_maps], sentence)
        d_real, d_mis, d_fake = (
            losses.hinge_real(real_logits),
            losses.hinge_fake(mismatched),
            losses.hinge_fake(fake_logits),
        )
        penalty = losses.magp(norm, self.config.penalty_weight, self.config.penalty_power)
        self.optimizer_d.zero_grad()
        (d_real + 0.5 * d_mis + 0.5 * d_fake + penalty).backward()
        parallel.average_gradients(discriminator.parameters())
        self.optimizer_d.step()
        return {"d_real": d_real, "d_mis": d_mis, "d_fake": d_fake, "magp": penalty}

    def _update_generator(
        self,
        step: int,
        real: Tensor,
        fake: Tensor,
        real_maps: list[Tensor],
        fake_maps: list[Tensor],
        embedding: Tensor,
        sentence: Tensor,
    ) -> dict[str, Tensor]:
        """L_G of equation 1, plus what the config adds to it."""
        config = self.config
        self.model.discriminator.requires_grad_(False)
        adversarial = losses.generator_adversarial(self.model.discriminator(fake_maps, sentence))
        self.model.discriminator.requires_grad_(True)
        similarity = losses.clip_similarity(embedding, sentence)
        scalars = {"g_adv": adversarial, "clip_sim": similarity}
        loss = adversarial - config.similarity_weight * similarity
        if config.range_weight:
            excess = F.relu(fake.abs() - 1).square().mean()
            loss = loss + config.range_weight * excess
            scalars["excess"] = excess
        if step < config.paired_steps:
            fade = (config.paired_steps - step) / (config.paired_steps - config.warmup_steps)
            pixel = _pixel_distance(fake, real)
            feature = _feature_distance(fake_maps, real_maps)
            loss = loss + fade * (config.paired_pixel_weight * pixel + config.paired_feature_weight * feature)
            scalars |= {"pixel": pixel, "feature": feature}
        self._descend(loss)
        return scalars

    def check_health(self) -> None:
        """Raises `QualityGateFailed` when the losses have collapsed over the last `HISTORY` steps."""
        if len(self._hinge) == self.HISTORY and np.mean(self._hinge) < 1e-3:
            raise QualityGateFailed(
                "the discriminator has won: its loss has been zero for "
                f"{self.HISTORY} steps and the generator learns nothing more. The last good state "
                "is kept; resume with a lower --lr-d"
            )
        if len(self._spread) == self.HISTORY and np.mean(self._spread) < 1e-3:
            raise QualityGateFailed(
                "the generator has collapsed: all pictures of a batch are the same. The last good "
                "state is kept; resume with a lower --lr-g"
            )

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Pictures (prompts · SAMPLE_SEEDS, 3, H, W): a row a prompt, a column a seed."""
        prompts = list(self.config.sample_prompts) or [captions[0] for captions in self.data.captions[:8]]
        text = self.model.config.clip.text
        tokens = torch.from_numpy(clip_tokenizer(text.merges, text.context_length).encode(prompts))
        sentence = self.model.text(tokens.to(self.device)).repeat_interleave(self.SAMPLE_SEEDS, dim=0)
        draws = noise_of_seeds(range(self.SAMPLE_SEEDS), self.model.config.generator.noise_dim)
        noise = torch.from_numpy(draws).to(self.device).repeat(len(prompts), 1)
        return self.model.generator(noise, sentence)

    def state(self, step: int) -> dict[str, Any]:
        """Everything needed to go on exactly after `step` steps."""
        return {
            "step": step,
            "generator": self.model.generator.state_dict(),
            "discriminator": self.model.discriminator.state_dict(),
            "ema": self.ema.values,
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "hinge": self._hinge,
            "spread": self._spread,
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Take up a saved state; returns the number of steps done."""
        self.model.generator.load_state_dict(state["generator"])
        self.model.discriminator.load_state_dict(state["discriminator"])
        self.ema.values = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        self._hinge, self._spread = state["hinge"], state["spread"]
        return int(state["step"])


def _pixel_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Mean L1 distance of pictures (N, 3, H, W) at full, half, quarter and eighth size. Scalar."""
    sizes = [F.l1_loss(F.avg_pool2d(fake, k), F.avg_pool2d(real, k)) for k in (1, 2, 4, 8)]
    return torch.stack(sizes).mean()


def _feature_distance(fake_maps: list[Tensor], real_maps: list[Tensor]) -> Tensor:
    """Sum over the collected maps, each (N, C, G, G), of their mean squared distance. Scalar."""
    maps = [F.mse_loss(a.float(), b.float()) for a, b in zip(fake_maps, real_maps, strict=True)]
    return torch.stack(maps).sum()
