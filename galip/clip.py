"""CLIP's towers, built by open_clip and run here.

The modules and their tensor names are open_clip's (which are OpenAI's). Only the forward passes are ours:
GALIP needs prompts between blocks, features after chosen blocks and captions shorter than the context, which
open_clip's do not offer.

Shapes: N batch, T tokens, L caption tokens, C token width, D embedding width, G patches along one side.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused
from galip_runtime.tokenizer import Tokenizer, read_clip_merges
from torch import Tensor, nn

from galip.clip_tags import find_pretrained
from galip.config import ClipConfig, GeneratorConfig

__all__ = [
    "ClipVit",
    "ImageTower",
    "TextTower",
    "build_clip",
    "clip_tokenizer",
    "freeze",
    "import_open_clip",
    "load_pretrained_clip",
]

_torchvision_ops: list[torch.library.Library] = []


@functools.cache
def import_open_clip() -> types.ModuleType:
    """Return the module `open_clip`, even if torchvision's build doesn't match torch's.

    open_clip imports torchvision, which fails with `operator torchvision::nms does not exist` if its compiled
    operators can't be loaded. We don't use them, so declaring two of them is enough.
    """
    try:
        import open_clip
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "open_clip")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision_ops.append(library)  # the declarations live as long as this object
        import open_clip
    return open_clip


def build_clip(config: ClipConfig) -> Any:
    """Return an open_clip `CLIP` (an untyped class) of the shape `config`, with new weights."""
    open_clip = import_open_clip()
    image, text = config.image, config.text
    return open_clip.model.CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=image.layers,
            width=image.width,
            head_width=image.head_width,
            patch_size=image.patch_size,
            image_size=image.image_size,
        ),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
        ),
        quick_gelu=config.quick_gelu,
    )


def load_pretrained_clip(name: str, tag: str) -> dict[str, Tensor]:
    """Return the state dict of open_clip's model `name` with the weights `tag`, downloaded if necessary.

    Raises `UsageError` listing the known tags if open_clip does not know the pair, `FileRefused` if they are
    out of reach or the download fails.
    """
    pretrained = find_pretrained(f"{name}:{tag}")
    pretrained.check_reachable()
    open_clip = import_open_clip()
    try:
        return open_clip.create_model(name, pretrained=tag).state_dict()
    except Exception as error:  # every way to download raises other errors
        raise FileRefused(
            f"open_clip could not load {tag!r} for {name!r} ({type(error).__name__}: {error}); "
            f"{pretrained.advice()}"
        ) from error


@functools.cache
def clip_tokenizer(merges: int, context_length: int) -> Tokenizer:
    """Return CLIP's tokenizer with its first `merges` BPE merges, from open_clip's vocabulary."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency"
    assert spec.origin is not None, "open_clip is a package with a file"
    data = (Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return Tokenizer(read_clip_merges(data, merges), context_length)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Compute scaled dot-product attention of tensors (N, heads, T, C/heads)."""
    if q.requires_grad and q.dtype is torch.bfloat16 and q.device.type == "cpu":
        # For a few dozen tokens the backward of the fused kernel is six times slower there than matmuls.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (N, heads, T, T)
        if causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf, dtype=scores.dtype).triu(1)
        return scores.softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def run_block(block: Any, x: Tensor, causal: bool = False) -> Tensor:
    """Run one of open_clip's residual attention blocks: (N, T, C) → (N, T, C)."""
    n, t, c = x.shape
    heads = block.attn.num_heads
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)  # (N, T, 3C)
    # Each (N, heads, T, C/heads)
    q, k, v = qkv.view(n, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
    out = attention(q, k, v, causal)  # (N, heads, T, C/heads)
    x = x + block.attn.out_proj(out.transpose(1, 2).reshape(n, t, c))  # (N, T, C)
    return x + block.mlp(block.ln_2(x))  # (N, T, C)


class TextTower(nn.Module):
    """Text tower: captions to sentence vectors. Tensor names are CLIP's own."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (N, L), L at most the context → sentence float32 (N, D), not normalised.

        The end token has the highest id, so argmax finds it. Attention is causal: tokens after it have no
        effect, so a batch may be cut after the end token of its longest caption.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]  # (N, L, C)
        for block in self.transformer.resblocks:
            x = run_block(block, x, causal=True)  # (N, L, C)
        x = self.ln_final(x)  # (N, L, C)
        end = tokens.argmax(dim=1)  # (N)
        last = x.gather(1, end[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)  # (N, C)
        return last @ self.text_projection  # (N, D)


class ImageTower(nn.Module):
    """Image tower: pictures to patch features and embeddings. Tensor names are CLIP's, without `visual.`"""

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, visual: Any, config: ClipConfig, pixel_range: str) -> None:
        super().__init__()
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.ln_pre = visual.ln_pre
        self.transformer = visual.transformer
        self.ln_post = visual.ln_post
        self.proj = visual.proj
        self.image_size = config.image.image_size
        self.pixel_range = pixel_range
        # One affine from [-1, 1] to CLIP's input; the released code rescales twice, x*0.5+0.5 and (x+1)*0.5
        scale, shift = (0.25, 0.75) if pixel_range == "released" else (0.5, 0.5)
        # Checkpoints don't store these, so they must not be on the meta device
        mean, std = (torch.tensor(values, device="cpu") for values in (config.mean, config.std))
        self.register_buffer("pixel_scale", (scale / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_shift", ((shift - mean) / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """Image (N, 3, H, W) in [-1, 1] → maps (N, C, G, G) after the blocks `layers`, and embedding (N, D).

        The embedding is the projected class token, not normalised. Resizing to CLIP's size is nearest, as in
        the released code.
        """
        maps, x = self._run(image, layers, len(self.transformer.resblocks))
        return maps, self.ln_post(x[:, 0]) @ self.proj  # (N, D)

    def maps(self, image: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Image (N, 3, H, W) → the maps of `forward` alone. Blocks after the last of `layers` don't run."""
        return self._run(image, layers, max(layers) + 1)[0]

    def _run(self, image: Tensor, layers: Sequence[int], depth: int) -> tuple[list[Tensor], Tensor]:
        """Return the maps after the blocks `layers`, and the tokens (N, 1+G², C) after `depth` blocks."""
        if image.shape[-2:] != (self.image_size, self.image_size):
            image = F.interpolate(image, size=(self.image_size, self.image_size))  # (N, 3, S, S)
        patches = self.conv1(image * self.pixel_scale + self.pixel_shift)  # (N, C, G, G)
        n, c, grid, _ = patches.shape
        x = torch.cat(
            [self.class_embedding.expand(n, 1, c).to(patches.dtype), patches.flatten(2).transpose(1, 2)],
            dim=1,
        )  # (N, 1+G², C)
        x = self.ln_pre(x + self.positional_embedding)
        maps = []
        for index, block in enumerate(self.transformer.resblocks[:depth]):
            x = run_block(block, x)
            if index in layers:
                maps.append(x[:, 1:].transpose(1, 2).reshape(n, c, grid, grid))  # (N, C, G, G)
        return maps, x


class ClipVit(nn.Module):
    """The frozen image tower in the generator, without its patch embedding (paper, figure 4).

    It has no patch convolution, final norm or projection, since the generator uses none of them.
    """

    def __init__(self, visual: Any, config: GeneratorConfig) -> None:
        super().__init__()
        self.class_embedding = copy.deepcopy(visual.class_embedding)
        self.positional_embedding = copy.deepcopy(visual.positional_embedding)
        self.ln_pre = copy.deepcopy(visual.ln_pre)
        self.resblocks = copy.deepcopy(visual.transformer.resblocks[: config.clip_layers])
        self.prompt_layers = config.prompt_layers

    def forward(self, bridge: Tensor, prompts: Tensor) -> Tensor:
        """Bridge (N, C, G, G), prompts (N, P, C) → visual concepts (N, C, G, G).

        Prompt i is appended to the tokens before block `prompt_layers[i]` and dropped after it.
        """
        n, c, grid, _ = bridge.shape
        tokens = F.pad(bridge.flatten(2).transpose(1, 2), (0, 0, 1, 0))  # (N, 1+G², C)
        first = F.pad(self.class_embedding[None], (0, 0, 0, grid**2))  # (1+G², C)
        x = self.ln_pre(tokens + (self.positional_embedding + first))  # (N, 1+G², C)
        for index, block in enumerate(self.resblocks):
            if index in self.prompt_layers:
                prompt = prompts[:, self.prompt_layers.index(index)].unsqueeze(1)  # (N, 1, C)
                x = run_block(block, torch.cat([x, prompt.to(x.dtype)], dim=1))[:, :-1]  # (N, 1+G², C)
            else:
                x = run_block(block, x)
        return x[:, 1:].transpose(1, 2).reshape(n, c, grid, grid)  # (N, C, G, G)


def freeze(modules: Iterable[nn.Module]) -> None:
    """Switch off the gradients of the modules' parameters and put them in evaluation mode."""
    for module in modules:
        module.requires_grad_(False).eval()
