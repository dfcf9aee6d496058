"""The config of a GALIP model, one frozen dataclass per concern, and its JSON form.

A checkpoint stores its whole `GalipConfig`, so loading never guesses a dimension.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from galip_runtime.bundle.decoding import typed
from galip_runtime.errors import FileRefused, UsageError

__all__ = [
    "ClipConfig",
    "DiscriminatorConfig",
    "GalipConfig",
    "GeneratorConfig",
    "ImageTowerConfig",
    "TextTowerConfig",
]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


MOST_WIDTH = 16_384
"""Largest width or number of channels; far above any model's."""
MOST_SIDE = 4_096
"""Largest side of a picture, in pixels."""
MOST_LAYERS = 128
"""Largest number of consecutive blocks: each takes time to build even without weights."""
MOST_MAP = 2**25
"""Largest number of activations in a generation block, for one picture: 128 MiB."""
MOST_FLOAT = 1e6
"""Largest absolute value of a float: single precision represents all of them."""


def _require_range(config: Any, least: float, most: float, *names: str) -> None:
    """Require every number in the fields `names`, numbers or tuples, to be in `least` … `most`."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        _require(len(numbers) <= MOST_LAYERS, f"{name} has {len(numbers)} entries; at most {MOST_LAYERS}")
        for number in numbers:
            text = str(number) if not abs(number) >= 10**20 else "a number of more than 20 digits"
            _require(least <= number <= most, f"{name} is {text}; it must be {least:.9g} to {most:.9g}")


@dataclass(frozen=True)
class ImageTowerConfig:
    """CLIP's vision transformer."""

    image_size: int = 224
    """Side of the square input, in pixels."""
    patch_size: int = 32
    """Side of a patch, in pixels; the grid is image_size / patch_size tokens wide."""
    width: int = 768
    """Token width; heads are `head_width` wide."""
    layers: int = 12
    """Transformer blocks."""
    head_width: int = 64
    """Width of one attention head."""

    def __post_init__(self) -> None:
        _require_range(self, 1, MOST_SIDE, "image_size", "patch_size")
        _require_range(self, 1, MOST_WIDTH, "width", "head_width")
        _require_range(self, 1, MOST_LAYERS, "layers")
        _require(
            self.image_size % self.patch_size == 0,
            f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}",
        )
        _require(
            self.width % self.head_width == 0,
            f"width {self.width} is not a multiple of head_width {self.head_width}",
        )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_width


@dataclass(frozen=True)
class TextTowerConfig:
    """CLIP's causal text transformer and the size of its BPE vocabulary."""

    context_length: int = 77
    """Most tokens in a caption, including the start and end tokens."""
    merges: int = 48_894
    """Number of BPE merges, the most frequent first; the vocabulary has 512 + merges + 2 tokens."""
    width: int = 512
    """Token width."""
    layers: int = 12
    """Transformer blocks."""
    heads: int = 8
    """Attention heads."""

    def __post_init__(self) -> None:
        _require_range(self, 3, MOST_SIDE, "context_length")  # start, end and a token
        _require_range(self, 1, MOST_WIDTH, "width", "heads")
        _require_range(self, 1, MOST_LAYERS, "layers")
        _require_range(self, 0, 48_894, "merges")
        _require(
            self.width % self.heads == 0, f"text width {self.width} is not a multiple of {self.heads} heads"
        )

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary: 256 bytes, 256 word-final bytes, the merges, start and end."""
        return 512 + self.merges + 2


@dataclass(frozen=True)
class ClipConfig:
    """The two CLIP towers and how pictures are normalised for them."""

    embed_dim: int = 512
    """Width D of sentence and image embeddings."""
    quick_gelu: bool = True
    """OpenAI's activation x·sigmoid(1.702x) instead of GELU."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Channel means of pictures in [0, 1]."""
    std: tuple[float, float, float] = OPENAI_STD
    """Channel standard deviations of pictures in [0, 1]."""
    image: ImageTowerConfig = field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)

    def __post_init__(self) -> None:
        _require_range(self, 1, MOST_WIDTH, "embed_dim")
        _require_range(self, -MOST_FLOAT, MOST_FLOAT, "mean")
        _require_range(self, 1 / MOST_FLOAT, MOST_FLOAT, "std")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClipConfig:
        """Return the config that `data` describes, as JSON stores it. Raises as `GalipConfig.from_dict`."""
        config: ClipConfig = _from_dict(cls, data, "clip")
        return config


@dataclass(frozen=True)
class GeneratorConfig:
    """The CLIP-empowered generator (paper, section 3.3 and figure 4)."""

    noise_dim: int = 100
    """Width Z of the noise vector."""
    use_clip: bool = True
    """False: Table 3's baseline, noise straight into the image generator, without bridge or CLIP."""
    bridge_channels: int = 64
    """Channels of the initial bridge feature."""
    fusion_hidden: int = 32
    """Channels inside a fusion block."""
    fusion_blocks: int = 4
    """Fusion blocks of the bridge feature predictor."""
    clip_layers: int = 12
    """Number of the image tower's blocks that the bridge feature passes through."""
    prompt_layers: tuple[int, ...] = tuple(range(1, 9))
    """0-based indices of the blocks with a prompt token; empty for Table 3's row without prompts."""
    clip_weight: float = 0.1
    """Weight of the visual concepts M in `B + clip_weight * M`."""
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    """Channels into the first generation block, then out of each block."""
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 224)
    """Side of the picture in each generation block, in pixels; the last is the output's."""

    def __post_init__(self) -> None:
        _require_range(self, 1, MOST_WIDTH, "noise_dim", "bridge_channels", "fusion_hidden")
        _require_range(self, 1, MOST_WIDTH, "channels")
        _require_range(self, 1, MOST_SIDE, "sizes")
        _require_range(self, 1, MOST_LAYERS, "clip_layers")
        _require_range(self, 0, MOST_LAYERS, "fusion_blocks", "prompt_layers")
        _require_range(self, -MOST_FLOAT, MOST_FLOAT, "clip_weight")
        _require(len(self.sizes) > 0, "sizes is empty; the image generator needs at least one block")
        _require(
            len(self.channels) == len(self.sizes) + 1,
            f"channels has {len(self.channels)} entries and sizes {len(self.sizes)}; channels needs one more",
        )
        _require(list(self.sizes) == sorted(self.sizes), f"sizes {self.sizes} must not decrease")
        for size, channels in zip(self.sizes, map(max, self.channels, self.channels[1:]), strict=True):
            _require(
                size**2 * channels <= MOST_MAP,
                f"sizes has {size} where channels has {channels}: more than {MOST_MAP:,} activations",
            )
        _require(
            all(0 <= layer < self.clip_layers for layer in self.prompt_layers),
            f"prompt_layers {self.prompt_layers} must be in 0 … clip_layers - 1 = {self.clip_layers - 1}",
        )
        _require(
            len(set(self.prompt_layers)) == len(self.prompt_layers),
            f"prompt_layers {self.prompt_layers} repeats a block",
        )

    @property
    def image_size(self) -> int:
        """Side of the generated picture, in pixels."""
        return self.sizes[-1]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Mate-D and the quality assessor (paper, section 3.2 and figure 3)."""

    collect_layers: tuple[int, ...] = (1, 4, 8)
    """0-based indices of the image tower's blocks whose outputs Mate-D reads, shallow to deep."""
    channels: int = 512
    """Channels of the extracted feature."""
    assessor_channels: int = 128
    """Channels between the assessor's two convolutions."""
    pixel_range: str = "clip"
    """How pictures in [-1, 1] become CLIP's input. `clip`: to [0, 1], then mean and std, as CLIP was trained.
    `released`: rescaled twice, as the released code does; released weights need it."""
    features: str = field(default="cfe", metadata={"added": True})
    """Feature extractor: `cfe`, GALIP's own; for Table 3 also `ccm-csm`, Projected GAN's fixed random
    mixing of the CLIP maps, and `cnn`, convolutions on the picture itself."""

    def __post_init__(self) -> None:
        _require_range(self, 0, MOST_LAYERS, "collect_layers")
        _require_range(self, 1, MOST_WIDTH, "channels", "assessor_channels")
        _require(len(self.collect_layers) > 0, "collect_layers is empty; Mate-D needs at least one layer")
        _require(
            list(self.collect_layers) == sorted(set(self.collect_layers)),
            f"collect_layers {self.collect_layers} must increase",
        )
        _require(
            self.features in ("cfe", "ccm-csm", "cnn"),
            f"features is {self.features!r:.80}; choose 'cfe', 'ccm-csm' or 'cnn'",
        )
        _require(
            self.pixel_range in ("released", "clip"),
            f"pixel_range is {self.pixel_range!r:.80}; choose 'released' or 'clip'",
        )


@dataclass(frozen=True)
class GalipConfig:
    """The config of a whole model."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        layers = self.clip.image.layers
        _require(
            self.generator.clip_layers <= layers,
            f"clip_layers is {self.generator.clip_layers}, but the image tower has only {layers} blocks",
        )
        _require(
            self.discriminator.collect_layers[-1] < layers,
            f"collect_layers {self.discriminator.collect_layers} exceeds the image tower's {layers} blocks",
        )
        _require(
            self.clip.image.grid >= 7,
            f"the image tower's grid is {self.clip.image.grid} patches wide; the assessor's two 4x4 "
            "convolutions need at least 7",
        )
        _require(
            self.generator.sizes[0] >= self.clip.image.grid,
            f"sizes starts with {self.generator.sizes[0]}, below the CLIP grid {self.clip.image.grid}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every field, in JSON's types."""
        data: dict[str, Any] = _with_lists(dataclasses.asdict(self))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GalipConfig:
        """Return the config that `to_dict` gave `data` of.

        Raises `UsageError` naming any unknown, missing or ill-typed field.
        """
        config: GalipConfig = _from_dict(cls, data, "config")
        return config


def _with_lists(value: Any) -> Any:
    """Return `value` with lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, tuple) else value


def _from_dict(cls: Any, data: Any, where: str) -> Any:
    """Return `data` as a `cls`, if it has exactly its fields."""
    try:
        return typed(cls, _completed(cls, data, where), where)
    except FileRefused as error:
        raise UsageError(*error.args) from error


def _completed(cls: Any, data: Any, where: str) -> Any:
    """Return `data` with defaults for fields that older files lack. Raises UsageError for unknown fields."""
    if not isinstance(data, Mapping):
        return data
    hints = typing.get_type_hints(cls)
    unknown = sorted(data.keys() - hints.keys())
    _require(not unknown, f"{where}: unknown fields {unknown[:5]!r:.200}")
    added = {entry.name: entry.default for entry in dataclasses.fields(cls) if entry.metadata.get("added")}
    return added | {
        name: _completed(hints[name], value, f"{where}.{name}")
        if dataclasses.is_dataclass(hints[name])
        else value
        for name, value in data.items()
    }
