"""The objectives of GALIP's training: equation 1 for both networks, and the paired distances.

Shapes: N batch, H by W pixels, C CLIP token width, G CLIP grid, D sentence. Scalars are means over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip import losses
from galip.model import Discriminator
from galip.train.config import GanConfig
from galip.train.projected import ProjectedHeads, projected_objective

__all__ = ["DiscriminatorObjective", "feature_distance", "generator_objective", "pixel_distance"]


class DiscriminatorObjective(nn.Module):
    """L_D of equation 1 in one forward pass, as distributed training requires; that of `heads` with it.

    Mate-D runs once on the real pictures: for their own sentences, for the mismatched ones and for MAGP.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        penalty_weight: float,
        penalty_power: float,
        heads: ProjectedHeads | None = None,
    ) -> None:
        super().__init__()
        self.discriminator, self.heads = discriminator, heads
        self.penalty_weight, self.penalty_power = penalty_weight, penalty_power

    def forward(
        self,
        real_maps: list[Tensor],
        fake_maps: list[Tensor],
        sentence: Tensor,
        mismatched: Tensor,
        scale: float = 1.0,
        real_vgg: Sequence[Tensor] = (),
        fake_vgg: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Maps, each (N, C, G, G), sentence and mismatched (N, D) → `d_real`, `d_mis`, `d_fake`, `magp`.

        With heads, which read the perceptual teacher's maps of both, also `p_real`, `p_mis` and `p_fake`.
        `scale`: factor of MAGP's inner gradients in fp16. It is fixed: the released code uses the loss scale,
        at which they overflow at first and the step is lost.
        """
        features: list[Tensor] = []

        def discriminate(maps: list[Tensor], e: Tensor) -> Tensor:
            features.append(self.discriminator.mate(maps))
            return self.discriminator.assessor(features[0], e)

        real_logits, norm = losses.magp_norm(discriminate, real_maps, sentence, scale)
        mismatched_logits = self.discriminator.assessor(features[0], mismatched)
        fake_logits = self.discriminator([feature.detach() for feature in fake_maps], sentence)
        terms = {
            "d_real": losses.hinge_real(real_logits),
            "d_mis": losses.hinge_fake(mismatched_logits),
            "d_fake": losses.hinge_fake(fake_logits),
            "magp": losses.magp(norm, self.penalty_weight, self.penalty_power),
        }
        if self.heads is not None:
            fake_vgg = [feature.detach() for feature in fake_vgg]
            terms |= projected_objective(self.heads, real_vgg, fake_vgg, sentence, mismatched)
        return terms

    @staticmethod
    def total(terms: dict[str, Tensor]) -> Tensor:
        """Return L_D, the sum of the terms with equation 1's weights, plus the same of the heads. Scalar.

        The heads share no weights with the discriminator, so they need no weight here: Adam would undo it.
        """
        loss = terms["d_real"] + 0.5 * terms["d_mis"] + 0.5 * terms["d_fake"] + terms["magp"]
        if "p_real" in terms:
            loss = loss + terms["p_real"] + 0.5 * terms["p_mis"] + 0.5 * terms["p_fake"]
        return loss


def generator_objective(
    config: GanConfig,
    step: int,
    *,
    adversarial: Tensor,
    embedding: Tensor,
    sentence: Tensor,
    fake: Tensor,
    real: Tensor,
    fake_maps: list[Tensor],
    real_maps: list[Tensor],
    perceptual: Tensor | None = None,
    projected: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the generator's loss (scalar) and its terms to log: L_G of equation 1 plus what `config` adds.

    adversarial scalar, embedding and sentence (N, D), fake and real (N, 3, H, W), maps each (N, C, G, G).
    Real maps and `perceptual`, LPIPS, are needed only before `config.paired_steps`. `projected`: what the
    heads say against the pictures. Scalars, None for a weight of zero.
    """
    similarity = losses.clip_similarity(embedding, sentence)
    scalars = {"g_adv": adversarial, "clip_sim": similarity}
    loss = adversarial - config.similarity_weight * similarity
    if config.range_weight:
        excess = F.relu(fake.abs() - 1).square().mean()
        loss = loss + config.range_weight * excess
        scalars["excess"] = excess
    if projected is not None:
        loss = loss + config.projected_weight * projected
        scalars["g_proj"] = projected
    if step < config.paired_steps:
        fade = (config.paired_steps - step) / (config.paired_steps - config.warmup_steps)
        pixel = pixel_distance(fake, real)
        feature = feature_distance(fake_maps, real_maps)
        paired = config.paired_pixel_weight * pixel + config.paired_feature_weight * feature
        scalars |= {"pixel": pixel, "feature": feature}
        if perceptual is not None:
            paired = paired + config.perceptual_weight * perceptual
            scalars["perceptual"] = perceptual
        loss = loss + fade * paired
    return loss, scalars


def pixel_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean L1 distance of pictures (N, 3, H, W) at full, half, quarter and eighth size. Scalar."""
    sizes = [F.l1_loss(F.avg_pool2d(fake, k), F.avg_pool2d(real, k)) for k in (1, 2, 4, 8)]
    return torch.stack(sizes).mean()


def feature_distance(fake_maps: list[Tensor], real_maps: list[Tensor]) -> Tensor:
    """Return the sum over the collected maps, each (N, C, G, G), of their mean squared distance. Scalar."""
    maps = [F.mse_loss(a.float(), b.float()) for a, b in zip(fake_maps, real_maps, strict=True)]
    return torch.stack(maps).sum()
