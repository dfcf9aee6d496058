"""An auxiliary discriminator on the perceptual teacher's maps, after Projected GAN (Sauer et al. 2021).

It belongs to a run, not to the model. Shapes: N pictures, C channels, S side, D sentence, P places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from galip import losses

__all__ = ["ProjectedHeads", "create_heads", "projected_adversarial", "projected_objective"]

_CHANNELS = 64
_SMALLEST_SIDE = 8
"""A head halves its map down to this side and judges every place there."""


class ProjectedHead(nn.Module):
    """Judges a map: fixed random channel mixing, strided convolutions, and projection of the sentence."""

    def __init__(self, width: int, side: int, embed_dim: int) -> None:
        super().__init__()
        mixing = nn.init.kaiming_normal_(torch.empty(_CHANNELS, width, 1, 1))  # Projected GAN's CCM
        self.register_buffer("mixing", mixing)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(_CHANNELS, _CHANNELS, 4, stride=2, padding=1)) for _ in _halvings(side)
        )
        self.last = spectral_norm(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1))
        self.real = spectral_norm(nn.Linear(_CHANNELS, 1))
        self.sentence = nn.Linear(embed_dim, _CHANNELS, bias=False)

    def features(self, feature: Tensor) -> Tensor:
        """Map (N, width, S, S) → features (N, P, C)."""
        x = F.conv2d(feature, self.get_buffer("mixing"))  # (N, C, S, S)
        for conv in (*self.convs, self.last):
            x = F.leaky_relu(conv(x), 0.2)
        return x.flatten(2).transpose(1, 2)  # (N, P, C)

    def logits(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Features (N, P, C), sentence (N, D) of unit length → logits (N, P) (Miyato and Koyama 2018)."""
        projected = self.sentence(sentence)[:, :, None]  # (N, C, 1)
        return (self.real(features) + features @ projected).squeeze(2)


class ProjectedHeads(nn.Module):
    """A head for each map. It stays in eval mode, so that a pass changes nothing."""

    def __init__(self, widths: list[int], side: int, embed_dim: int) -> None:
        """For maps of `widths` channels, the first of `side` pixels, each other half as large."""
        super().__init__()
        self.heads = nn.ModuleList(
            ProjectedHead(width, side >> index, embed_dim) for index, width in enumerate(widths)
        )
        self.eval()

    def features(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, shallow to deep → features, each (N, P, C)."""
        return [head.features(feature) for head, feature in zip(self.heads, maps, strict=True)]

    def logits(self, features: list[Tensor], sentence: Tensor) -> list[Tensor]:
        """Features, each (N, P, C), sentence (N, D) → logits, each (N, P)."""
        sentence = F.normalize(sentence, dim=1)
        return [head.logits(x, sentence) for head, x in zip(self.heads, features, strict=True)]

    def forward(self, maps: Sequence[Tensor], sentence: Tensor) -> list[Tensor]:
        """Maps, shallow to deep, and sentence (N, D) → logits, each (N, P)."""
        return self.logits(self.features(maps), sentence)

    @torch.no_grad()
    def update_norms(self) -> None:
        """Follow the weights' largest singular values by a step of the power method. Once a training step."""
        for module in self.modules():
            if nn.utils.parametrize.is_parametrized(module):
                module.parametrizations.train()
                module.weight  # noqa: B018 - computed, and with it the singular vectors
                module.parametrizations.eval()


def create_heads(widths: list[int], side: int, embed_dim: int, seed: int) -> ProjectedHeads:
    """Create heads with random weights by `seed`, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ProjectedHeads(widths, side, embed_dim)


def projected_objective(
    heads: ProjectedHeads,
    real_maps: Sequence[Tensor],
    fake_maps: Sequence[Tensor],
    sentence: Tensor,
    mismatched: Tensor,
) -> dict[str, Tensor]:
    """Return the hinge losses of equation 1, `p_real`, `p_mis` and `p_fake`: means over places and heads.

    Maps of VGG, shallow to deep, without gradients; sentence and mismatched (N, D).
    """
    real = heads.features(real_maps)
    return {
        "p_real": _mean(losses.hinge_real(logits) for logits in heads.logits(real, sentence)),
        "p_mis": _mean(losses.hinge_fake(logits) for logits in heads.logits(real, mismatched)),
        "p_fake": _mean(losses.hinge_fake(logits) for logits in heads(fake_maps, sentence)),
    }


def projected_adversarial(heads: ProjectedHeads, fake_maps: Sequence[Tensor], sentence: Tensor) -> Tensor:
    """Return the generator's loss by the heads: minus the mean logit over places and heads. Scalar."""
    return _mean(losses.generator_adversarial(logits) for logits in heads(fake_maps, sentence))


def _mean(scalars: Iterable[Tensor]) -> Tensor:
    return torch.stack([*scalars]).mean()


def _halvings(side: int) -> range:
    """Return a range with an item for each halving of `side` down to `_SMALLEST_SIDE`."""
    return range(max(math.ceil(math.log2(side / _SMALLEST_SIDE)), 0))
