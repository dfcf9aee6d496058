"""GALIP: the CLIP-empowered generator, Mate-D and the quality assessor (Tao et al., CVPR 2023).

Shapes: N batch, Z noise, D sentence, C CLIP token width, G CLIP grid, P prompts, H = W picture side.
Where the released code differs from the paper, we follow the released code, and a comment says so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip.ablations import CnnFeatures, CrossMixing
from galip.clip import ClipVit, ImageTower, TextTower, build_clip, freeze
from galip.config import ClipConfig, DiscriminatorConfig, GalipConfig, GeneratorConfig

__all__ = ["Discriminator", "Galip", "Generator", "MateD", "QualityAssessor"]


def conv(in_channels: int, out_channels: int, size: int, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias)


class AffineMlp(nn.Sequential):
    """cond (N, Z+D) → one number per channel (N, channels): Linear, ReLU, Linear; initially `constant`."""

    def __init__(self, cond_dim: int, channels: int, constant: float) -> None:
        last = nn.Linear(channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, constant)
        super().__init__(nn.Linear(cond_dim, channels), nn.ReLU(), last)


class Affine(nn.Module):
    """γ(cond)·x + β(cond) per channel (DF-GAN's affine transformation); initially the identity."""

    def __init__(self, cond_dim: int, channels: int) -> None:
        super().__init__()
        self.gamma = AffineMlp(cond_dim, channels, 1.0)
        self.beta = AffineMlp(cond_dim, channels, 0.0)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (N, C, H, W), cond (N, Z+D) → (N, C, H, W)."""
        gamma = self.gamma(cond)[:, :, None, None]  # (N, C, 1, 1)
        beta = self.beta(cond)[:, :, None, None]  # (N, C, 1, 1)
        return torch.addcmul(beta, gamma, x)


class DFBlock(nn.Module):
    """Deep text-image fusion block of DF-GAN: affine, LeakyReLU, affine, LeakyReLU."""

    def __init__(self, cond_dim: int, channels: int) -> None:
        super().__init__()
        self.affine0 = Affine(cond_dim, channels)
        self.affine1 = Affine(cond_dim, channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (N, C, H, W), cond (N, Z+D) → (N, C, H, W)."""
        x = F.leaky_relu(self.affine0(x, cond), 0.2)
        return F.leaky_relu(self.affine1(x, cond), 0.2)


class FusionBlock(nn.Module):
    """Fusion block (F-BLK) of the bridge feature predictor: x + DF(conv(DF(conv(x))))."""

    def __init__(self, cond_dim: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.df1 = conv(channels, hidden, 3), DFBlock(cond_dim, hidden)
        self.conv2, self.df2 = conv(hidden, channels, 3), DFBlock(cond_dim, channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (N, B, G, G), cond (N, Z+D) → (N, B, G, G)."""
        h = self.df1(self.conv1(x), cond)  # (N, hidden, G, G)
        return x + self.df2(self.conv2(h), cond)  # (N, B, G, G)


class GenerationBlock(nn.Module):
    """Generation block (G-BLK): nearest upsampling, then shortcut(x) + conv(DF(conv(DF(x)))).

    Nearest upsampling commutes with any pointwise operation, so the first DFBlock and the shortcut run
    before it: the same result for a quarter of the work.
    """

    def __init__(self, cond_dim: int, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.df1, self.conv1 = DFBlock(cond_dim, in_channels), conv(in_channels, out_channels, 3)
        self.df2, self.conv2 = DFBlock(cond_dim, out_channels), conv(out_channels, out_channels, 3)
        self.shortcut = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (N, Ci, h, w), cond (N, Z+D) → (N, Co, size, size)."""
        h = self.grow(self.df1(x, cond))  # (N, Co, size, size)
        return self.upsample(self.shortcut(x)) + self.conv2(self.df2(h, cond))  # (N, Co, size, size)

    def grow(self, x: Tensor) -> Tensor:
        """x (N, Ci, h, w) → (N, Co, size, size). Training replaces it by a cheaper equivalent."""
        return self.conv1(self.upsample(x))

    def upsample(self, x: Tensor) -> Tensor:
        """x (N, C, h, w) → (N, C, size, size), nearest."""
        if x.shape[-1] == self.size:
            return x
        return F.interpolate(x, size=(self.size, self.size), mode="nearest")


class BridgePredictor(nn.Module):
    """Bridge feature predictor (Bridge-FP): noise and sentence to the bridge feature (paper, section 3.3)."""

    def __init__(self, config: GeneratorConfig, cond_dim: int, grid: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.fc = nn.Linear(config.noise_dim, config.bridge_channels * grid * grid)
        self.fusion = nn.ModuleList(
            FusionBlock(cond_dim, config.bridge_channels, config.fusion_hidden)
            for _ in range(config.fusion_blocks)
        )
        self.out = conv(config.bridge_channels, width, 5)

    def forward(self, noise: Tensor, cond: Tensor) -> Tensor:
        """Noise (N, Z), cond (N, Z+D) → bridge feature (N, C, G, G)."""
        x = self.fc(noise).view(noise.shape[0], -1, self.grid, self.grid)  # (N, B, G, G)
        for block in self.fusion:
            x = block(x, cond)  # (N, B, G, G)
        return self.out(x)  # (N, C, G, G)


class Generator(nn.Module):
    """CLIP-empowered generator: noise and a sentence vector to a picture in one pass (paper, figure 4)."""

    def __init__(self, config: GeneratorConfig, clip: ClipConfig, visual: nn.Module) -> None:
        """Build from open_clip's image tower `visual`, whose blocks the generator copies."""
        super().__init__()
        self.config = config
        cond_dim = config.noise_dim + clip.embed_dim
        self.grid, width = clip.image.grid, clip.image.width
        first = config.channels[0]
        if config.use_clip:
            self.bridge = BridgePredictor(config, cond_dim, self.grid, width)
            self.prompt = (
                nn.Linear(cond_dim, len(config.prompt_layers) * width) if config.prompt_layers else None
            )
            self.clip_vit = ClipVit(visual, config)
            self.concept = conv(width, first, 5)
            freeze([self.clip_vit])
        else:
            self.fc = nn.Linear(config.noise_dim, first * self.grid * self.grid)
        self.blocks = nn.ModuleList(
            GenerationBlock(cond_dim, in_channels, out_channels, size)
            for in_channels, out_channels, size in zip(
                config.channels, config.channels[1:], config.sizes, strict=False
            )
        )
        self.to_rgb = conv(config.channels[-1], 3, 3)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Noise float32 (N, Z), sentence float32 (N, D) → image (N, 3, H, W), RGB, nominally in [-1, 1].

        The output is not bounded (the released code has no tanh); clamp it to display it.
        """
        cond = torch.cat([noise, sentence], dim=1)  # (N, Z+D)
        x = self.visual_concepts(noise, cond)  # (N, channels[0], G, G)
        for block in self.blocks:
            x = block(x, cond)  # (N, channels[i+1], sizes[i], sizes[i])
        return self.to_rgb(F.leaky_relu(x, 0.2))  # (N, 3, H, W)

    def visual_concepts(self, noise: Tensor, cond: Tensor) -> Tensor:
        """Return the input of the generation blocks, (N, channels[0], G, G)."""
        if not self.config.use_clip:
            return self.fc(noise).view(noise.shape[0], -1, self.grid, self.grid)
        n = noise.shape[0]
        bridge = self.bridge(noise, cond)  # (N, C, G, G)
        prompts = self.prompt(cond) if self.prompt else cond[:, :0]  # (N, P·C)
        prompts = prompts.view(n, -1, bridge.shape[1])  # (N, P, C)
        concepts = self.clip_vit(bridge, prompts)  # (N, C, G, G)
        return self.concept(bridge + self.config.clip_weight * concepts)  # (N, channels[0], G, G)


class ExtractionBlock(nn.Module):
    """Block of Mate-D: two 3×3 convolutions without bias, and the learned weights of figure 3's sums."""

    def __init__(self, in_channels: int, out_channels: int, adds_feature: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv(in_channels, out_channels, 3, bias=False),
            nn.LeakyReLU(0.2),
            conv(out_channels, out_channels, 3, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.gamma = nn.Parameter(torch.zeros(1))
        self.beta = nn.Parameter(torch.zeros(1)) if adds_feature else None
        self.shortcut = nn.Identity() if adds_feature else conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, feature: Tensor | None = None) -> Tensor:
        """x (N, Ci, G, G), the next CLIP feature (N, Ci, G, G) or None → (N, Co, G, G)."""
        out = self.shortcut(x) + self.gamma * self.convs(x)
        if self.beta is None or feature is None:
            return out
        return out + self.beta * feature


class MateD(nn.Module):
    """CLIP feature extractor (CLIP-FE): one feature from several CLIP maps (paper, figure 3)."""

    def __init__(self, config: DiscriminatorConfig, width: int) -> None:
        super().__init__()
        self.extraction = nn.ModuleList(
            ExtractionBlock(width, width, adds_feature=True) for _ in config.collect_layers[1:]
        )
        self.main = ExtractionBlock(width, config.channels, adds_feature=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, each (N, C, G, G), shallow to deep → (N, channels, G, G)."""
        x = maps[0]
        for block, feature in zip(self.extraction, maps[1:], strict=True):
            x = block(x, feature)  # (N, C, G, G)
        return self.main(x)  # (N, channels, G, G)


class QualityAssessor(nn.Module):
    """Scores how real a picture is and how well it matches the sentence, from Mate-D's feature."""

    def __init__(self, config: DiscriminatorConfig, embed_dim: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(config.channels + embed_dim, config.assessor_channels, 4, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(config.assessor_channels, 1, 4, bias=False),
        )

    def forward(self, feature: Tensor, sentence: Tensor) -> Tensor:
        """Feature (N, channels, G, G), sentence (N, D) → logits (N), averaged over positions where G > 7."""
        tiled = sentence[:, :, None, None].expand(-1, -1, *feature.shape[2:])  # (N, D, G, G)
        return self.convs(torch.cat([feature, tiled.to(feature.dtype)], dim=1)).mean(dim=(1, 2, 3))  # (N)


class Discriminator(nn.Module):
    """Mate-D and the quality assessor, on maps from the frozen CLIP image tower."""

    def __init__(self, config: DiscriminatorConfig, clip: ClipConfig) -> None:
        super().__init__()
        self.mate = _feature_extractor(config, clip)
        self.assessor = QualityAssessor(config, clip.embed_dim)

    def forward(self, maps: list[Tensor], sentence: Tensor) -> Tensor:
        """Maps, each (N, C, G, G), sentence (N, D) → logits (N)."""
        return self.assessor(self.mate(maps), sentence)


def _feature_extractor(config: DiscriminatorConfig, clip: ClipConfig) -> nn.Module:
    if config.features == "cnn":
        return CnnFeatures(config, clip)
    if config.features == "ccm-csm":
        return CrossMixing(config, clip.image.width, ExtractionBlock)
    return MateD(config, clip.image.width)


class Galip(nn.Module):
    """The whole model: the frozen CLIP towers `text` and `image`, generator and discriminator.

    The generator has a copy of the image tower's blocks, as in the released files; a checkpoint stores equal
    tensors once.
    """

    def __init__(self, config: GalipConfig) -> None:
        super().__init__()
        self.config = config
        clip = build_clip(config.clip)
        self.text = TextTower(clip)
        self.image = ImageTower(clip.visual, config.clip, config.discriminator.pixel_range)
        self.generator = Generator(config.generator, config.clip, clip.visual)
        self.discriminator = Discriminator(config.discriminator, config.clip)
        freeze([self.text, self.image])

    def use_towers(self, text: TextTower, image: ImageTower) -> None:
        """Copy the weights of these towers, of the same shapes, to every place where the model has CLIP."""
        self.text.load_state_dict(text.state_dict())
        self.image.load_state_dict(image.state_dict())
        if self.config.generator.use_clip:
            self.generator.clip_vit.load_state_dict(ClipVit(image, self.config.generator).state_dict())

    def collect(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image (N, 3, H, W) in [-1, 1] → the maps that Mate-D reads, and CLIP's image embedding (N, D)."""
        if self.config.discriminator.features == "cnn":
            return [image], self.image(image, ())[1]
        return self.image(image, self.config.discriminator.collect_layers)

    def collect_maps(self, image: Tensor) -> list[Tensor]:
        """Image (N, 3, H, W) → the maps of `collect` alone. CLIP stops after the last of them."""
        if self.config.discriminator.features == "cnn":
            return [image]
        return self.image.maps(image, self.config.discriminator.collect_layers)
