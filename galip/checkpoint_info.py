"""The description in a checkpoint's metadata, checked before it is believed.

Reading it takes milliseconds: no tensor is read and no block is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galip_runtime.bundle.decoding import parse, typed
from galip_runtime.errors import FileRefused, UsageError

from galip.config import ClipConfig, GalipConfig
from galip.headers import check_dtype_names, read_header

__all__ = [
    "FORMAT_VERSION",
    "PARTS",
    "CheckpointInfo",
    "image_tower_names",
    "is_galip_checkpoint",
    "read_galip_info",
    "read_info",
]

FORMAT_VERSION = "1"
PARTS = ("text", "image", "generator", "discriminator")
"""Attributes of `Galip` that a file may hold; those it lacks are None after loading."""


@dataclass(frozen=True)
class CheckpointInfo:
    """The description that a checkpoint carries."""

    kind: str
    """`galip` or `clip`."""
    config: GalipConfig | ClipConfig
    """The config of the whole model, or of CLIP."""
    parts: tuple[str, ...]
    """Parts in the file."""
    note: dict[str, Any] = field(default_factory=dict)
    """Where the weights came from: a training run's figures, a converted file's hash."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each stored tensor."""
    dtypes: tuple[str, ...] = ()
    """Dtypes of the stored tensors, in safetensors' names (F32, F16)."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Tensors that are not stored because they equal another: name → stored name."""


def is_galip_checkpoint(path: Path) -> bool:
    """Return whether `path` is a safetensors file that claims our format."""
    try:
        return read_header(path).metadata.get("format") == "galip"
    except FileRefused:
        return False


def read_info(path: Path) -> CheckpointInfo:
    """Return the description of the checkpoint at `path` without reading its tensors.

    Raises `FileRefused` if the file is missing, not a safetensors file, not in our format, or if its config
    has other blocks than it stores.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("format") != "galip":
        raise FileRefused(
            f"{path} is a safetensors file but not a galip checkpoint; `galip convert` makes one from a "
            "released file"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise FileRefused(
            f"{path} has format version {metadata.get('format_version')!s:.80}, but this galip reads "
            f"{FORMAT_VERSION}; use the galip version that wrote it, or update"
        )
    try:
        fields = {name: parse(metadata[name]) for name in ("config", "parts", "note", "aliases")}
        kind, parts = metadata["kind"], typed(tuple[str, ...], fields["parts"], "parts")
        if kind not in ("galip", "clip") or not set(parts) <= set(PARTS):
            raise FileRefused(f"kind {kind!r} with parts {parts}")
        config_class = GalipConfig if kind == "galip" else ClipConfig
        info = CheckpointInfo(
            kind,
            config_class.from_dict(fields["config"]),
            parts,
            typed(Mapping[str, Any], fields["note"], "note"),
            {name: spec.shape for name, spec in header.tensors.items()},
            tuple(sorted({spec.dtype for spec in header.tensors.values()})),
            typed(Mapping[str, str], fields["aliases"], "aliases"),
        )
        _check_aliases(info.aliases)
    except (KeyError, FileRefused, UsageError) as error:
        raise FileRefused(f"{path}: the metadata is damaged ({error})") from error
    check_dtype_names({name: spec.dtype for name, spec in header.tensors.items()}, str(path))
    _check_blocks(info, path)
    return info


def read_galip_info(path: Path, needs: Iterable[str] = ("generator",)) -> CheckpointInfo:
    """Return the description of the GALIP checkpoint at `path`.

    Raises as `read_info`, and `FileRefused` if it holds only CLIP or lacks a part in `needs`.
    """
    info = read_info(path)
    if info.kind != "galip":
        raise FileRefused(
            f"{path} holds only CLIP's towers; give a GALIP checkpoint (galip train writes one)"
        )
    missing = [part for part in needs if part not in info.parts]
    if missing:
        raise FileRefused(
            f"{path} has no {' and no '.join(missing)} part, only {', '.join(info.parts)}; "
            "convert it again with --clip CLIP, or give another checkpoint"
        )
    return info


def image_tower_names(name: str) -> tuple[str, ...]:
    """Return the names that the image tower may have for the original of the generator's tensor `name`."""
    prefix, _, rest = name.partition("clip_vit.")
    return (f"image.{rest}", f"image.transformer.{rest}") if prefix == "generator." else ()


def _check_aliases(aliases: Mapping[str, str]) -> None:
    """Raise `FileRefused` unless each alias is a generator's copy: one tensor could stand for a thousand."""
    for name, target in aliases.items():
        if target not in image_tower_names(name):
            raise FileRefused(f"aliases says that {name!r:.80} equals {target!r:.80}")


def _check_blocks(info: CheckpointInfo, path: Path) -> None:
    """Raise `FileRefused` if the config has another number of blocks than the file.

    Building a block takes time even without weights, so the blocks are counted first.
    """
    names = [*info.shapes, *info.aliases]
    for prefix, expected in _block_counts(info).items():
        stored = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
        if len(stored) != expected:
            raise FileRefused(
                f"{path} has {len(stored)} blocks {prefix}*, but its config says {expected}; the file is "
                "damaged"
            )


def _block_counts(info: CheckpointInfo) -> dict[str, int]:
    """Return the number of blocks in the config, by the prefix of their tensors' names."""
    config = info.config
    if isinstance(config, ClipConfig):
        towers = {"transformer": config.text.layers, "visual.transformer": config.image.layers}
        return {f"{tower}.resblocks.": layers for tower, layers in towers.items()}
    generator = config.generator
    blocks = {
        "text.transformer.resblocks.": config.clip.text.layers,
        "image.transformer.resblocks.": config.clip.image.layers,
        "generator.clip_vit.resblocks.": generator.clip_layers if generator.use_clip else 0,
        "generator.bridge.fusion.": generator.fusion_blocks if generator.use_clip else 0,
        "generator.blocks.": len(generator.sizes),
    }
    return {prefix: count for prefix, count in blocks.items() if prefix.partition(".")[0] in info.parts}
