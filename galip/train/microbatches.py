"""A training step's batch on the device, split into microbatches to save memory.

Shapes: N pictures, H by W pixels, Z noise, D sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from galip.data.loader import TrainingLoader
from galip.data.sampler import generator_for
from galip.model import Galip
from galip.train.augment import (
    AUGMENT_DIMS,
    diff_augment,
    pose,
    pose_from_noise,
    random_corner,
    random_offset,
    shift,
    to_float,
)
from galip.train.config import GanConfig
from galip.train.fabric import gather_batch

__all__ = ["Microbatch", "load_microbatches"]


@dataclass
class Microbatch:
    """What one process works on at once."""

    offset: tuple[int, int]  # pixels
    corner: tuple[int, int]  # pixels, where the square that the perceptual teacher sees begins
    real: Tensor  # (N, 3, H, W)
    noise: Tensor  # (N, Z)
    sentence: Tensor  # (N, D)
    mismatched: Tensor  # (N, D), the next picture's sentence in the whole batch
    augment: Tensor  # (N, AUGMENT_DIMS) in [0, 1]

    def augmented(self, pictures: Tensor, policy: tuple[str, ...]) -> Tensor:
        """Return pictures (N, 3, H, W) by DiffAugment's `policy`, then shifted; real and fake ones alike."""
        if policy:
            pictures = diff_augment(pictures, policy, self.augment)
        return shift(pictures, self.offset)


def load_microbatches(
    config: GanConfig, model: Galip, loader: TrainingLoader, fabric: Fabric, step: int
) -> list[Microbatch]:
    """Load this process's rows of `step`, in `config.accumulate` microbatches.

    Random numbers are sampled for the whole batch, so each row has its own however many processes share it.
    """
    device = fabric.device
    batch = loader.batch(step)
    rng = generator_for(config.seed, "gan", step)
    noise = torch.randn(config.batch_size, model.config.generator.noise_dim, generator=rng)
    augment = torch.rand(config.batch_size, AUGMENT_DIMS, generator=rng)
    offset = random_offset(config.clip_shift, rng)
    corner = random_corner(model.config.generator.image_size, config.perceptual_size, rng)
    noise, augment = noise[batch.rows].to(device), augment[batch.rows].to(device)
    real = to_float(batch.pictures.to(device, non_blocking=True))  # (N, 3, H, W)
    if config.pose:
        real = pose(real, pose_from_noise(noise))
    with torch.no_grad(), fabric.autocast():
        sentence = model.text(batch.tokens.to(device, non_blocking=True)).float()  # (N, D)
    whole = gather_batch(fabric, sentence)  # (N·world, D)
    mismatched = whole.roll(-1, dims=0)[fabric.global_rank :: fabric.world_size]  # (N, D)
    columns = [column.chunk(config.accumulate) for column in (real, noise, sentence, mismatched, augment)]
    return [Microbatch(offset, corner, *row) for row in zip(*columns, strict=True)]
