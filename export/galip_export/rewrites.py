"""A generator that computes the same with less work: the one that is exported, unless with `--rewrites none`.

Each function turns a module or its weights into an equal one, up to rounding; its docstring has the algebra.
`Rewritten` puts them together.

Shapes: N batch, Z noise, D sentence, K all first layers' outputs, B affine networks of one width, C channels,
Ci and Co channels in and out, S side, W token width, G CLIP grid, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip.model import AffineMlp, FusionBlock, GenerationBlock, Generator
from galip_export.rewrite_names import REWRITES, check_rewrites

__all__ = [
    "REWRITES",
    "Conditioning",
    "Rewritten",
    "SubPixelConv",
    "affine_networks",
    "check_rewrites",
    "rewrite",
    "sub_pixel_kernels",
]


def rewrite(generator: Generator, rewrites: str = "exact") -> nn.Module:
    """Return `generator` as `rewrites` says; its own weights stay as they are. Raises as `check_rewrites`."""
    if check_rewrites(rewrites) == "none":
        return generator
    return Rewritten(generator).train(generator.training)


class Rewritten(nn.Module):
    """The generator's forward pass, rewritten: same inputs, same picture."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        config = generator.config
        self.use_clip, self.grid = config.use_clip, generator.grid
        self.conditioning = Conditioning(
            affine_networks(generator), generator.prompt if config.use_clip else None, config.noise_dim
        )
        if config.use_clip:
            self.bridge, self.concept = generator.bridge, generator.concept
            self.vit, self.clip_weight = generator.clip_vit, config.clip_weight
        else:
            self.fc = generator.fc
        self.blocks = nn.ModuleList(_growing(generator))
        self.to_rgb = generator.to_rgb

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Noise (N, Z), sentence (N, D) → image (N, 3, H, W)."""
        affines, prompts = self.conditioning(noise, sentence)
        remaining = iter(affines)
        x = self._visual_concepts(noise, remaining, prompts)  # (N, C, G, G)
        for block in self.blocks:
            x = block(x, remaining)
        return self.to_rgb(F.leaky_relu(x, 0.2))  # (N, 3, H, W)

    def _visual_concepts(self, noise: Tensor, affines: Iterator[Tensor], prompts: Tensor | None) -> Tensor:
        n = noise.shape[0]
        if not self.use_clip:
            return self.fc(noise).view(n, -1, self.grid, self.grid)
        x = self.bridge.fc(noise).view(n, -1, self.grid, self.grid)
        for block in self.bridge.fusion:
            assert isinstance(block, FusionBlock)
            h = fuse(block.conv1(x), affines)
            x = x + fuse(block.conv2(h), affines)
        bridge = self.bridge.out(x)  # (N, W, G, G)
        rows = bridge.new_empty(n, 0) if prompts is None else prompts
        concepts = self.vit(bridge, rows.view(n, -1, bridge.shape[1]))  # (N, W, G, G)
        return self.concept(bridge + self.clip_weight * concepts)  # (N, channels[0], G, G)


def fuse(x: Tensor, affines: Iterator[Tensor]) -> Tensor:
    """Apply a DFBlock to x (N, C, S, S); its γ₀, β₀, γ₁, β₁, each (N, C, 1, 1), come next in `affines`."""
    for _ in range(2):
        gamma, beta = next(affines), next(affines)
        x = F.leaky_relu(x * gamma + beta, 0.2)
    return x


class Conditioning(nn.Module):
    """All affine networks at once, from noise and sentence.

    Network i is Aᵢ·relu(Fᵢ·[z; s] + fᵢ) + aᵢ. All Fᵢ stacked are one matrix F = [F_z F_s], so all first
    layers are F_z·z + (F_s·s + f), whose second part depends on the sentence alone. Second layers of one
    width C are one product of (B, N, C) with (B, C, C). The prompts' linear layer joins the first ones.
    """

    def __init__(self, networks: Sequence[AffineMlp], prompt: nn.Linear | None, noise_dim: int) -> None:
        super().__init__()
        layers = [_layers(network) for network in networks]
        self.widths = [first.out_features for first, _ in layers]
        distinct = list(dict.fromkeys(self.widths))
        order = [index for width in distinct for index, other in enumerate(self.widths) if other == width]
        self.place = [order.index(index) for index in range(len(order))]
        self.groups = [(width, self.widths.count(width)) for width in distinct]
        self.prompt_size = prompt.out_features if prompt else 0
        firsts = [layers[index][0] for index in order] + ([prompt] if prompt else [])
        weight = torch.cat([first.weight for first in firsts]).detach()
        self.from_noise = nn.Parameter(weight[:, :noise_dim].clone())
        self.from_sentence = nn.Parameter(weight[:, noise_dim:].clone())
        self.bias = nn.Parameter(torch.cat([first.bias for first in firsts]).detach())
        self.seconds, self.second_biases = nn.ParameterList(), nn.ParameterList()
        for width in distinct:
            seconds = [layers[index][1] for index in order if self.widths[index] == width]
            self.seconds.append(torch.stack([second.weight.detach().T for second in seconds]))  # (B, C, C)
            self.second_biases.append(torch.stack([second.bias.detach() for second in seconds])[:, None])

    def forward(self, noise: Tensor, sentence: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Noise (N, Z), sentence (N, D) → each network's output (N, C, 1, 1), and prompts (N, P·W)."""
        return self.finish(noise, self.of_sentence(sentence))

    def of_sentence(self, sentence: Tensor) -> Tensor:
        """Compute what depends on the sentence alone: (N, D) → (N, K)."""
        return F.linear(sentence, self.from_sentence, self.bias)

    def finish(self, noise: Tensor, condition: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Noise (N, Z), condition (N, K) → as `forward`."""
        sizes = [width * count for width, count in self.groups]
        first = F.linear(noise, self.from_noise) + condition  # (N, K)
        *parts, prompts = first.split([*sizes, self.prompt_size], dim=1)
        outputs: list[Tensor] = []
        for (width, count), part, weight, bias in zip(
            self.groups, parts, self.seconds, self.second_biases, strict=True
        ):
            hidden = F.relu(part).view(-1, count, width).transpose(0, 1)  # (B, N, C)
            second = hidden @ weight + bias  # (B, N, C)
            maps = second.transpose(0, 1).reshape(-1, count * width, 1, 1)
            outputs += maps.split(width, dim=1)  # each (N, C, 1, 1)
        return [outputs[place] for place in self.place], prompts if self.prompt_size else None


class SubPixelConv(nn.Module):
    """Nearest upsampling to twice the size and a 3×3 convolution with padding 1, done at the small size.

    Behind nearest doubling, two of three neighbouring pixels are equal, so that a row's taps w₀, w₁, w₂
    become two: (w₀, w₁ + w₂) on pixels i-1, i for the even row 2i, and (w₀ + w₁, w₂) on i, i+1 for the odd
    one; columns likewise. That is a 2×2 convolution for each of four phases, interleaved: 16
    products where there were 36.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.phases = nn.ModuleList()
        for kernel in sub_pixel_kernels(conv.weight.detach()):
            phase = nn.Conv2d(conv.in_channels, conv.out_channels, 2)
            phase.weight = nn.Parameter(kernel)
            phase.bias = conv.bias
            self.phases.append(phase)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, Ci, S, S) → (N, Co, 2S, 2S)."""
        phases = []
        for number, phase in enumerate(self.phases):
            down, right = divmod(number, 2)
            phases.append(phase(F.pad(x, (1 - right, right, 1 - down, down))))  # (N, Co, S, S)
        stacked = torch.stack(phases, dim=2)  # (N, Co, 4, S, S)
        return F.pixel_shuffle(stacked.flatten(1, 2), 2)  # (N, Co, 2S, 2S)


def sub_pixel_kernels(weight: Tensor) -> list[Tensor]:
    """Return the four 2×2 kernels (Co, Ci, 2, 2) of `SubPixelConv`, phases (row, column) 00, 01, 10, 11."""

    def halves(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        first, middle, last = kernel.unbind(dim)
        return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)

    return [phase for rows in halves(weight, 2) for phase in halves(rows, 3)]


class GrowingBlock(nn.Module):
    """A generation block whose affine networks are computed beforehand."""

    def __init__(self, block: GenerationBlock, doubles: bool) -> None:
        super().__init__()
        self.block = block
        self.doubling = SubPixelConv(block.conv1) if doubles else None

    def forward(self, x: Tensor, affines: Iterator[Tensor]) -> Tensor:
        """x (N, Ci, S, S) → (N, Co, size, size)."""
        block = self.block
        h = fuse(x, affines)
        h = self.doubling(h) if self.doubling else block.grow(h)  # (N, Co, size, size)
        return block.upsample(block.shortcut(x)) + block.conv2(fuse(h, affines))


def _layers(network: AffineMlp) -> tuple[nn.Linear, nn.Linear]:
    first, _, second = network
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    return first, second


def affine_networks(generator: Generator) -> list[AffineMlp]:
    """Return γ₀, β₀, γ₁, β₁ of every DFBlock, in the order of use."""
    fusions = list(generator.bridge.fusion) if generator.config.use_clip else []
    networks: list[AffineMlp] = []
    for block in (*fusions, *generator.blocks):
        assert isinstance(block, FusionBlock | GenerationBlock)
        for affine in (block.df1.affine0, block.df1.affine1, block.df2.affine0, block.df2.affine1):
            networks += affine.gamma, affine.beta
    return networks


def _growing(generator: Generator) -> Iterator[GrowingBlock]:
    size = generator.grid
    for block in generator.blocks:
        assert isinstance(block, GenerationBlock)
        yield GrowingBlock(block, doubles=block.size == 2 * size)
        size = block.size
