"""One step of GALIP's training: an update of the discriminator and one of the generator.

A step generates the fakes once and runs CLIP once on them and once on the real pictures; both updates use
those features. What departs from GALIP (off by default): the paired warm-up, the range penalty, augmentation,
the perceptual teacher.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from galip import losses
from galip.data.loader import TrainingLoader
from galip.model import Galip
from galip.train.augment import cut_out
from galip.train.collapse import CollapseDetector
from galip.train.config import GanConfig
from galip.train.ema import EMA
from galip.train.fabric import MIN_LOSS_SCALE
from galip.train.fast_layers import choose_memory_format, fuse_upsampling, split_assessor
from galip.train.microbatches import Microbatch, load_microbatches
from galip.train.objectives import DiscriminatorObjective, generator_objective, pixel_distance
from galip.train.perceptual import PerceptualFeatures, load_perceptual, perceptual_distance
from galip.train.projected import ProjectedHeads, create_heads, projected_adversarial

__all__ = ["Trainer"]

WARMUP_BETAS = (0.9, 0.99)
"""Adam's decays in the warm-up, a plain regression; the paper's (0, 0.9) are for the adversarial game."""


@dataclass
class _Features:
    """A microbatch's generated pictures, CLIP's features of both kinds, and the perceptual teacher's maps."""

    fake: Tensor  # (N, 3, H, W)
    real_maps: list[Tensor]  # each (N, C, G, G)
    fake_maps: list[Tensor]  # each (N, C, G, G)
    embedding: Tensor  # (N, D), of the generated pictures
    real_vgg: list[Tensor]  # shallow to deep; empty if nothing compares them
    fake_vgg: list[Tensor]


class Trainer:
    """Model, optimizers and EMA, and the training step over them."""

    def __init__(self, config: GanConfig, model: Galip, loader: TrainingLoader, fabric: Fabric) -> None:
        self.config, self.model, self.loader, self.fabric = config, model.train(), loader, fabric
        model.text.eval()
        model.image.eval()
        memory_format = choose_memory_format(fabric.device, model.config.generator.image_size)
        model.to(fabric.device, memory_format=memory_format)  # type: ignore[call-overload]
        fuse_upsampling(model.generator)
        split_assessor(model.discriminator.assessor)
        betas = (config.beta1, config.beta2)
        generator: Any = torch.compile(model.generator) if config.compile else model.generator
        self.collect = torch.compile(model.collect) if config.compile else model.collect
        self.generator, self.optimizer_g = fabric.setup(
            generator, torch.optim.Adam(_trainable(model.generator), lr=config.lr_g, betas=betas, fused=True)
        )
        self.perceptual = self._load_perceptual()
        self.heads = self._create_heads()
        objective = DiscriminatorObjective(
            model.discriminator, config.penalty_weight, config.penalty_power, self.heads
        )
        self.discriminator_objective, self.optimizer_d = fabric.setup(
            objective, torch.optim.Adam(_trainable(objective), lr=config.lr_d, betas=betas, fused=True)
        )
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)
        self.ema = EMA(model.generator, config.ema_decay)
        self.collapse = CollapseDetector()
        self.best: dict[str, float] = {}
        self.validated_step = 0  # the last step after which `Validation` measured

    def _load_perceptual(self) -> PerceptualFeatures | None:
        if not self.config.perceptual:
            return None
        features = load_perceptual(Path(self.config.perceptual))
        return features.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _create_heads(self) -> ProjectedHeads | None:
        if self.perceptual is None or not self.config.projected_weight:
            return None
        side = min(self.config.perceptual_size, self.model.config.generator.image_size)
        embed_dim = self.model.config.clip.embed_dim
        heads = create_heads(self.perceptual.widths, side, embed_dim, self.config.seed)
        return heads.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(self, step: int) -> dict[str, Tensor]:
        """Update the discriminator and the generator; returns the scalars to log."""
        self._set_learning_rates(step)
        microbatches = load_microbatches(self.config, self.model, self.loader, self.fabric, step)
        is_warm_up = step < self.config.warmup_steps
        scalars = self._warm_up(microbatches) if is_warm_up else self._adversarial(step, microbatches)
        self.ema.update(self.model.generator, step)
        return scalars

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rates of the last step."""
        optimizers = {"generator": self.optimizer_g, "discriminator": self.optimizer_d}
        return {network: float(it.param_groups[0]["lr"]) for network, it in optimizers.items()}

    def _set_learning_rates(self, step: int) -> None:
        """Set the config's learning rates and decays, which may differ from a resumed run's."""
        config = self.config
        lr, betas = config.lr_g, (config.beta1, config.beta2)
        if step < config.warmup_steps:  # half a cosine from the warm-up's rate down to the adversarial one
            lr += (config.warmup_lr - lr) * 0.5 * (1 + math.cos(math.pi * step / config.warmup_steps))
            betas = WARMUP_BETAS
        for group in self.optimizer_g.param_groups:
            group.update(lr=lr, betas=betas)
        for group in self.optimizer_d.param_groups:
            group.update(lr=config.lr_d, betas=betas if step >= config.warmup_steps else group["betas"])

    def _warm_up(self, microbatches: list[Microbatch]) -> dict[str, Tensor]:
        self.optimizer_g.zero_grad()
        means = _Means(len(microbatches))
        for part in microbatches:
            with self._accumulating(self.generator, part is not microbatches[-1]):
                fake = self.generator(part.noise, part.sentence)  # (N, 3, H, W)
                scalars = {"pixel": pixel_distance(fake, part.real)}
                loss = self.config.paired_pixel_weight * scalars["pixel"]
                if self.config.perceptual_weight:
                    scalars["perceptual"] = self._perceptual_distance(
                        self._perceive(part, fake), self._perceive(part, part.real)
                    )
                    loss = loss + self.config.perceptual_weight * scalars["perceptual"]
                self.fabric.backward(loss / len(microbatches))
            means.add(scalars)
        self.optimizer_g.step()
        self.collapse.add_spread(fake)
        return means.values

    def _adversarial(self, step: int, microbatches: list[Microbatch]) -> dict[str, Tensor]:
        """One round of the adversarial game.

        A batch in one part is generated once and used for both updates. One in several parts is generated
        again for the generator's update, which is what saves the memory.
        """
        once = len(microbatches) == 1
        is_paired, compares = step < self.config.paired_steps, self._compares(step)
        if self.heads is not None:
            self.heads.update_norms()
        means = _Means(len(microbatches))
        self.optimizer_d.zero_grad()
        for part in microbatches:
            vgg = self.heads is not None or (once and compares)
            features = self._extract_features(part, with_grad=once, vgg=vgg)
            with self._accumulating(self.discriminator_objective, part is not microbatches[-1]):
                means.add(self._backward_discriminator(part, features, len(microbatches)))
        self.optimizer_d.step()
        self.optimizer_g.zero_grad()
        for part in microbatches:
            with self._accumulating(self.generator, part is not microbatches[-1]):
                if not once:
                    vgg = self.heads is not None or compares
                    features = self._extract_features(part, with_grad=True, real=is_paired, vgg=vgg)
                means.add(self._backward_generator(step, part, features, len(microbatches)))
        self.optimizer_g.step()
        self.collapse.add_hinge(means.values["d_real"] + means.values["d_fake"])
        self.collapse.add_spread(features.fake)
        return means.values

    def _extract_features(
        self, part: Microbatch, with_grad: bool, real: bool = True, vgg: bool = False
    ) -> _Features:
        """Generate the pictures and extract CLIP's features of them and, if `real`, of the real ones,
        augmented alike. `vgg`: the perceptual teacher's maps of the same pictures, too.
        """
        policy = self.config.diff_augment
        with torch.set_grad_enabled(with_grad):
            fake = self.generator(part.noise, part.sentence)
            with self.fabric.autocast():
                real_maps, real_vgg = [], list[Tensor]()
                with torch.no_grad():
                    if real:
                        seen = part.augmented(part.real, policy)
                        real_maps = self.model.collect_maps(seen)
                        real_vgg = self._perceive(part, seen) if vgg else []
                seen = part.augmented(fake, policy)
                fake_maps, embedding = self.collect(seen)
                fake_vgg = self._perceive(part, seen) if vgg else []
        return _Features(fake, real_maps, fake_maps, embedding, real_vgg, fake_vgg)

    def _compares(self, step: int) -> bool:
        """Return whether LPIPS is among the losses of an adversarial step."""
        return step < self.config.paired_steps and self.config.perceptual_weight > 0

    def _perceive(self, part: Microbatch, pictures: Tensor) -> list[Tensor]:
        """Return the perceptual teacher's maps of the part's square of pictures (N, 3, H, W)."""
        assert self.perceptual is not None, "the config has weights only with a teacher"
        with self.fabric.autocast():
            maps: list[Tensor] = self.perceptual(cut_out(pictures, part.corner, self.config.perceptual_size))
        return maps

    def _perceptual_distance(self, fake_vgg: list[Tensor], real_vgg: list[Tensor]) -> Tensor:
        """Return LPIPS between the pictures with these maps. Scalar."""
        assert self.perceptual is not None, "maps are the teacher's"
        return perceptual_distance(self.perceptual.linear_weights, fake_vgg, real_vgg)

    def _projected_adversarial(self, part: Microbatch, features: _Features) -> Tensor | None:
        """Return what the heads say against the generated pictures (scalar); None without heads."""
        if self.heads is None:
            return None
        self.heads.requires_grad_(False)
        with self.fabric.autocast():
            loss = projected_adversarial(self.heads, features.fake_vgg, part.sentence)
        self.heads.requires_grad_(True)
        return loss

    def _backward_discriminator(self, part: Microbatch, features: _Features, parts: int) -> dict[str, Tensor]:
        """Compute the discriminator's gradients: L_D of equation 1."""
        scale = MIN_LOSS_SCALE if self.scaler else 1.0
        terms = self.discriminator_objective(
            features.real_maps,
            features.fake_maps,
            part.sentence,
            part.mismatched,
            scale,
            features.real_vgg,
            features.fake_vgg,
        )
        self.fabric.backward(DiscriminatorObjective.total(terms) / parts)
        return dict(terms)

    def _backward_generator(
        self, step: int, part: Microbatch, features: _Features, parts: int
    ) -> dict[str, Tensor]:
        """Compute the generator's gradients: L_G of equation 1, plus what the config adds to it."""
        discriminator = self.model.discriminator
        discriminator.requires_grad_(False)
        with self.fabric.autocast():
            adversarial = losses.generator_adversarial(discriminator(features.fake_maps, part.sentence))
        discriminator.requires_grad_(True)
        loss, scalars = generator_objective(
            self.config,
            step,
            adversarial=adversarial,
            embedding=features.embedding,
            sentence=part.sentence,
            fake=features.fake,
            real=part.real,
            fake_maps=features.fake_maps,
            real_maps=features.real_maps,
            perceptual=(
                self._perceptual_distance(features.fake_vgg, features.real_vgg)
                if self._compares(step)
                else None
            ),
            projected=self._projected_adversarial(part, features),
        )
        self.fabric.backward(loss / parts)
        return scalars

    def _accumulating(self, module: Any, has_more: bool) -> contextlib.AbstractContextManager[Any]:
        """Return a context that averages gradients over processes with the last part only."""
        if self.fabric.world_size == 1 or not has_more:
            return contextlib.nullcontext()
        return self.fabric.no_backward_sync(module)


class _Means:
    """Means of scalars over the parts of a batch."""

    def __init__(self, parts: int) -> None:
        self.parts, self.values = parts, dict[str, Tensor]()

    def add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            share = value.detach() / self.parts
            self.values[name] = self.values[name] + share if name in self.values else share


def _trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
