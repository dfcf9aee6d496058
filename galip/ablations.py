"""Feature extractors of the paper's Table 3 that replace Mate-D: maps in, a feature (N, channels, G, G) out.

Shapes: N batch, C CLIP token width, G CLIP grid, S picture side.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from galip.config import ClipConfig, DiscriminatorConfig

__all__ = ["CnnFeatures", "CrossMixing"]


class DownBlock(nn.Module):
    """DF-GAN's downsampling block: two convolutions with a learned weight, and a 1×1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.gamma = nn.Parameter(self.shortcut.weight.new_zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, Ci, h, w) → (N, Co, h/2, w/2)."""
        return F.avg_pool2d(self.shortcut(x), 2) + self.gamma * self.convs(x)


class CnnFeatures(nn.Module):
    """Table 3's baseline: the convolutional discriminator of DF-GAN (Tao et al. 2022), without CLIP."""

    def __init__(self, config: DiscriminatorConfig, clip: ClipConfig) -> None:
        super().__init__()
        size, channels = clip.image.image_size, max(config.channels // 16, 4)
        self.grid = clip.image.grid
        blocks: list[nn.Module] = [nn.Conv2d(3, channels, 3, 1, 1)]
        while size >= 2 * self.grid:
            blocks.append(DownBlock(channels, min(2 * channels, config.channels)))
            channels, size = min(2 * channels, config.channels), size // 2
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(channels, config.channels, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps [picture (N, 3, S, S)] → (N, channels, G, G)."""
        return F.adaptive_avg_pool2d(self.blocks(maps[0]), self.grid)


class CrossMixing(nn.Module):
    """CCM and CSM of Projected GAN (Sauer et al. 2021): fixed random convolutions mix channels, then scales.

    Starting from the deepest, each map is mixed with the next shallower one, and a block like Mate-D's reads
    every result. All CLIP maps have one size, so nothing is upsampled.
    """

    def __init__(self, config: DiscriminatorConfig, width: int, block: type[nn.Module]) -> None:
        super().__init__()
        count = len(config.collect_layers)
        self.channel_mixing = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(count))
        self.scale_mixing = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(count - 1)
        )
        for mixing in (*self.channel_mixing, *self.scale_mixing):
            nn.init.kaiming_normal_(mixing.weight)
            mixing.requires_grad_(False)
        self.judges = nn.ModuleList(block(width, config.channels, adds_feature=False) for _ in range(count))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, each (N, C, G, G), shallow to deep → (N, channels, G, G)."""
        mixed = [mixing(feature) for mixing, feature in zip(self.channel_mixing, maps, strict=True)]
        for index in reversed(range(len(mixed) - 1)):
            mixed[index] = self.scale_mixing[index](mixed[index] + mixed[index + 1])
        outputs = [block(feature) for block, feature in zip(self.judges, mixed, strict=True)]
        return sum(outputs[1:], start=outputs[0])
