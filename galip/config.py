"""What a GALIP model is made of: one frozen dataclass a concern, and their JSON form.

A checkpoint stores its `GalipConfig` whole, so loading never guesses a dimension.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from galip_runtime.errors import UsageError

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
"""Bound of widths and channels; far above any model's, and small enough to reckon with."""
MOST_SIDE = 4_096
"""Bound of a picture's side, pixels."""
MOST_LAYERS = 128
"""Bound of blocks in a row: each costs time to build even without weights."""
MOST_MAP = 2**25
"""Bound of the numbers in a generation block's map of one picture: 128 MiB."""
MOST_FLOAT = 1e6
"""Bound of numbers with a fraction: none of them leaves what single precision holds."""


def _require_range(config: Any, least: float, most: float, *names: str) -> None:
    """Every number of the fields `names`, each a number or a tuple of them, must be in `least` … `most`."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        _require(len(numbers) <= MOST_LAYERS, f"{name} has {len(numbers)} entries; at most {MOST_LAYERS}")
        for number in numbers:
            shown = str(number) if not abs(number) >= 10**20 else "a number of more than 20 digits"
            _require(least <= number <= most, f"{name} is {shown}; it must be {least:.9g} to {most:.9g}")


@dataclass(frozen=True)
class ImageTowerConfig:
    """CLIP's vision transformer."""

    image_size: int = 224
    """Side of the square input, pixels."""
    patch_size: int = 32
    """Side of a patch, pixels; the grid is image_size / patch_size tokens wide."""
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
            f"image_size {self.image_size} is no multiple of "
            f"patch_size {self.patch_size}; choose sizes that divide",
        )
        _require(
            self.width % self.head_width == 0,
            f"width {self.width} is no multiple of head_width {self.head_width}",
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
    """CLIP's causal text transformer and the cut of its BPE vocabulary."""

    context_length: int = 77
    """Tokens a caption may have, start and end tokens included."""
    merges: int = 48_894
    """BPE merges kept, from the most frequent down; the vocabulary has 512 + merges + 2 tokens."""
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
            self.width % self.heads == 0, f"text width {self.width} is no multiple of {self.heads} heads"
        )

    @property
    def vocab_size(self) -> int:
        """256 bytes, 256 word-final bytes, the merges, start and end."""
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
        """The inverse of `dataclasses.asdict`. Raises `UsageError` as `GalipConfig.from_dict`."""
        config: ClipConfig = _from_dict(cls, data, "clip")
        return config


@dataclass(frozen=True)
class GeneratorConfig:
    """The CLIP-empowered generator (paper, section 3.3 and figure 4)."""

    noise_dim: int = 100
    """Width Z of the noise vector."""
    use_clip: bool = True
    """False: Table 3's baseline generator, noise straight into the image generator, no bridge and no CLIP."""
    bridge_channels: int = 64
    """Channels of the initial bridge feature."""
    fusion_hidden: int = 32
    """Channels inside a fusion block."""
    fusion_blocks: int = 4
    """Fusion blocks of the bridge feature predictor."""
    clip_layers: int = 12
    """How many of the image tower's blocks the bridge feature goes through."""
    prompt_layers: tuple[int, ...] = tuple(range(1, 9))
    """0-based indices of the blocks that get a prompt token; empty for Table 3's row without prompts."""
    clip_weight: float = 0.1
    """Weight of the visual concepts M in `B + clip_weight * M`."""
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    """Channels entering the first generation block, then leaving each."""
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 224)
    """Side of the picture inside each generation block, pixels; the last is the output's."""

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
            f"{len(self.channels)} channels for {len(self.sizes)} sizes; give one more channel than sizes",
        )
        _require(list(self.sizes) == sorted(self.sizes), f"sizes {self.sizes} must not shrink")
        for size, channels in zip(self.sizes, map(max, self.channels, self.channels[1:]), strict=True):
            _require(
                size**2 * channels <= MOST_MAP,
                f"sizes has {size} where channels has {channels}; a map has at most {MOST_MAP:,} numbers",
            )
        _require(
            all(0 <= layer < self.clip_layers for layer in self.prompt_layers),
            f"prompt_layers {self.prompt_layers} must lie in 0 … clip_layers - 1 = {self.clip_layers - 1}",
        )
        _require(
            len(set(self.prompt_layers)) == len(self.prompt_layers),
            f"prompt_layers {self.prompt_layers} names a block twice",
        )

    @property
    def image_size(self) -> int:
        """Side of the generated picture, pixels."""
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
    pixel_range: Literal["released", "clip"] = "clip"
    """How pictures in [-1, 1] become CLIP's input. `clip`: to [0, 1], then mean and std, as CLIP was trained.
    `released`: rescaled twice, as the released code does; released weights need it."""
    features: Literal["cfe", "ccm-csm", "cnn"] = field(default="cfe", metadata={"added": True})
    """What finds features: `cfe`, GALIP's own; for Table 3 also `ccm-csm`, Projected GAN's fixed random
    mixing of the CLIP maps, and `cnn`, convolutions on the picture itself."""

    def __post_init__(self) -> None:
        _require_range(self, 0, MOST_LAYERS, "collect_layers")
        _require_range(self, 1, MOST_WIDTH, "channels", "assessor_channels")
        _require(len(self.collect_layers) > 0, "collect_layers is empty; Mate-D needs at least one layer")
        _require(
            list(self.collect_layers) == sorted(set(self.collect_layers)),
            f"collect_layers {self.collect_layers} must rise",
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
    """A whole model."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        layers = self.clip.image.layers
        _require(
            self.generator.clip_layers <= layers,
            f"the generator wants {self.generator.clip_layers} CLIP blocks, the image tower has {layers}",
        )
        _require(
            self.discriminator.collect_layers[-1] < layers,
            f"collect_layers {self.discriminator.collect_layers} goes past the image tower's {layers} blocks",
        )
        _require(
            self.clip.image.grid >= 7,
            f"the assessor's two 4x4 convolutions need a grid of at least 7 "
            f"patches, the image tower has {self.clip.image.grid}",
        )
        _require(
            self.generator.sizes[0] >= self.clip.image.grid,
            f"the first size {self.generator.sizes[0]} is below the CLIP grid {self.clip.image.grid}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, every field present."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GalipConfig:
        """The inverse of `to_dict`.

        Raises `UsageError` naming any unknown, missing or ill-typed field.
        """
        config: GalipConfig = _from_dict(cls, data, "config")
        return config


def _from_dict(cls: Any, data: Any, where: str) -> Any:
    _require(isinstance(data, Mapping), f"{where} must be an object, not {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    required = {
        f.name for f in dataclasses.fields(cls) if not f.metadata.get("added")
    }  # older files lack the rest
    unknown, missing = sorted(set(data) - names), sorted(required - set(data))
    _require(
        not unknown and not missing, f"{where}: unknown fields {unknown[:5]!r:.200}, missing fields {missing}"
    )
    return cls(**{name: _value(hints[name], data[name], f"{where}.{name}") for name in names & set(data)})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` asks for; lists become tuples."""
    if dataclasses.is_dataclass(hint):
        return _from_dict(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), f"{where} must be a list, not {value!r:.80}")
        _require(args[-1] is Ellipsis or len(value) == len(args), f"{where} needs {len(args)} entries")
        _require(len(value) <= MOST_LAYERS, f"{where} has {len(value)} entries; at most {MOST_LAYERS}")
        return tuple(_value(args[0], item, where) for item in value)
    if origin is Literal:
        _require(isinstance(value, str), f"{where} must be a string, not {type(value).__name__}")
        return value  # which one it may be is checked by the dataclass itself
    if hint is float:
        _require(isinstance(value, (int, float)) and not isinstance(value, bool), f"{where} must be a number")
        try:
            return float(value)
        except OverflowError:
            raise UsageError(f"{where} is too large for a number with a fraction") from None
    _require(type(value) is hint, f"{where} must be {hint.__name__}, not {value!r:.80}")
    return value
