"""Our checkpoint format: one safetensors file whose metadata holds the whole config.

A `galip` file has some of the parts text, image, generator, discriminator; a `clip` file has CLIP's two
towers under CLIP's own tensor names. Tensors are stored once: `aliases` in the metadata names those that
equal another bit for bit (the generator's copy of the image tower).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from galip_runtime.bundle.decoding import parse, typed
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.files import staged_file
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from galip.clip import build_clip
from galip.config import ClipConfig, GalipConfig
from galip.model import Galip
from galip.tensors import as_weights, check_kinds, read_header, read_safetensors

__all__ = [
    "PARTS",
    "CheckpointInfo",
    "blank_galip",
    "is_ours",
    "load_clip",
    "load_galip",
    "load_weights",
    "read_info",
    "save_clip",
    "save_galip",
]

FORMAT_VERSION = "1"
PARTS = ("text", "image", "generator", "discriminator")
"""Attributes of `Galip` that a file may hold; those it lacks are None after loading."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself."""

    kind: str
    """`galip` or `clip`."""
    config: GalipConfig | ClipConfig
    """The whole model's config, or CLIP's."""
    parts: tuple[str, ...]
    """Parts the file holds."""
    note: dict[str, Any] = field(default_factory=dict)
    """Where it came from: a training run's figures, a converted file's hash."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each stored tensor."""
    dtypes: tuple[str, ...] = ()
    """Dtypes that occur, in safetensors' names (F32, F16)."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Tensors that are not stored because they equal another: name → stored name."""


def save_galip(
    path: Path,
    model: Galip,
    *,
    parts: Iterable[str] = PARTS,
    dtype: torch.dtype = torch.float32,
    note: Mapping[str, Any] | None = None,
) -> None:
    """Write `model`'s `parts` to `path`, stored as `dtype`; whole or not at all.

    Raises `UsageError` when a part is unknown, the model doesn't have it or `path` cannot be written,
    `QualityGateFailed` for numbers that aren't finite or that `dtype` cannot hold.
    """
    parts = tuple(parts)
    for part in parts:
        if part not in PARTS or getattr(model, part) is None:
            raise UsageError(f"the model has no part {part!r}; parts are {', '.join(PARTS)}")
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.partition(".")[0] in parts}
    _write(path, "galip", model.config.to_dict(), parts, tensors, dtype, note)


def save_clip(
    path: Path, clip: nn.Module, config: ClipConfig, *, note: Mapping[str, Any] | None = None
) -> None:
    """Write CLIP's two towers to `path` under CLIP's own tensor names; whole or not at all.

    Raises as `save_galip`.
    """
    _write(
        path, "clip", dataclasses.asdict(config), ("text", "image"), clip.state_dict(), torch.float32, note
    )


def load_galip(path: Path, *, needs: Iterable[str] = ("generator",)) -> Galip:
    """The model in `path`, float32, on the CPU, in evaluation mode; parts the file lacks are None.

    Raises `FileRefused` when it is no whole GALIP checkpoint of this format, or lacks a part in `needs`.
    """
    info = read_info(path)
    if info.kind != "galip":
        raise FileRefused(
            f"{path} holds only CLIP's towers; give a GALIP checkpoint (galip train writes one)"
        )
    lacking = [part for part in needs if part not in info.parts]
    if lacking:
        raise FileRefused(
            f"{path} has no {' and no '.join(lacking)} part, only {', '.join(info.parts)}; "
            "convert it again with --clip CLIP, or give another checkpoint"
        )
    assert isinstance(info.config, GalipConfig)
    model = blank_galip(info.config, info.parts)
    load_weights(model, _tensors(path, info, model), str(path))
    return model.eval()


def blank_galip(config: GalipConfig, parts: Iterable[str]) -> Galip:
    """A model without weights (and without the seconds that random ones take), for `load_weights` to fill."""
    with torch.device("meta"):
        model = Galip(config)
    for part in set(PARTS) - set(parts):
        setattr(model, part, None)
    return model


def load_clip(path: Path) -> tuple[Any, ClipConfig]:
    """The CLIP in `path` (kind `clip`) as an open_clip model, float32, frozen by nobody yet, and its config.

    Raises `FileRefused` when it is no whole CLIP checkpoint of this format.
    """
    info = read_info(path)
    if not isinstance(info.config, ClipConfig):
        raise FileRefused(
            f"{path} is a GALIP checkpoint; give a CLIP checkpoint (galip train-clip writes one)"
        )
    with torch.device("meta"):
        clip = build_clip(info.config)
    load_weights(clip, _tensors(path, info, clip), str(path))
    clip.attn_mask = clip.attn_mask.new_full(clip.attn_mask.shape, -torch.inf, device="cpu").triu(
        1
    )  # unsaved
    return clip, info.config


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `module` the `tensors` as float32; every name and shape must match. A blank module takes them
    without a copy.

    Raises `FileRefused` listing the missing, unknown and misshapen tensors of `source`, or naming those that
    are no plain floating-point ones or not finite.
    """
    check_kinds(tensors, source)
    _check_fit(module, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    weights = as_weights(tensors)
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if bad:
        raise FileRefused(
            f"{source} has NaN or infinite numbers in {', '.join(bad[:5])}; the file is damaged or "
            "its training diverged"
        )
    blank = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(weights, assign=blank)


def _check_fit(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raises `FileRefused` unless `module` has tensors of just these names and shapes."""
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [
        f"misshapen: {name} is {shapes[name]}, should be {own[name]}"
        for name in own
        if name in shapes and shapes[name] != own[name]
    ]
    problems += [f"unknown: {name} {shapes[name]}" for name in shapes if name not in own]
    problems += [f"missing: {name} {own[name]}" for name in own if name not in shapes]
    if problems:
        listed = [f"{problem:.200}" for problem in problems[:20]]
        more = [f"… and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise FileRefused(f"{source} does not fit the model's shape:", *listed, *more)


def is_ours(path: Path) -> bool:
    """Whether `path` is a safetensors file that says it is of our format."""
    try:
        return read_header(path).metadata.get("format") == "galip"
    except FileRefused:
        return False


def read_info(path: Path) -> CheckpointInfo:
    """What the checkpoint at `path` says of itself, without reading its tensors.

    Raises `FileRefused` when it is missing, no safetensors file, not of our format, or when its config has
    other blocks than it stores.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("format") != "galip":
        raise FileRefused(
            f"{path} is a safetensors file, but not one of galip's; `galip convert` makes those"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise FileRefused(
            f"{path} has format version {metadata.get('format_version')!s:.80}, this galip reads "
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
        raise FileRefused(f"{path}: its metadata is damaged ({error})") from error
    check_kinds({name: spec.dtype for name, spec in header.tensors.items()}, str(path))
    _check_blocks(info, path)
    return info


def _check_aliases(aliases: Mapping[str, str]) -> None:
    """Raises `FileRefused` for others than `_aliases` gives: one tensor could stand for a thousand."""
    for name, target in aliases.items():
        if target not in _twins(name):
            raise FileRefused(f"aliases says that {name!r:.80} equals {target!r:.80}")


def _check_blocks(info: CheckpointInfo, path: Path) -> None:
    """Raises `FileRefused` where the config has another number of blocks than the file.

    A block takes time to build even without numbers, so they are counted before one is.
    """
    names = [*info.shapes, *info.aliases]
    for prefix, claimed in _claimed_blocks(info).items():
        stored = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
        if len(stored) != claimed:
            raise FileRefused(
                f"{path} has {len(stored)} blocks {prefix}*, its config says {claimed}; the file is damaged"
            )


def _claimed_blocks(info: CheckpointInfo) -> dict[str, int]:
    """How many blocks in a row the config has, by the beginning of their tensors' names."""
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


def _tensors(path: Path, info: CheckpointInfo, module: nn.Module) -> dict[str, Tensor]:
    """All tensors of the file as stored, aliases resolved, if names and shapes are those of `module`."""
    dangling = sorted(set(info.aliases.values()) - info.shapes.keys())
    if dangling:
        raise FileRefused(f"{path}: its aliases name tensors it doesn't have: {', '.join(dangling[:5])}")
    aliased = {name: info.shapes[target] for name, target in info.aliases.items()}
    _check_fit(module, info.shapes | aliased, str(path))
    stored = read_safetensors(path)
    return stored | {name: stored[target] for name, target in info.aliases.items()}


def _write(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    parts: tuple[str, ...],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    note: Mapping[str, Any] | None,
) -> None:
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    aliases = _aliases(stored)
    metadata = {
        "format": "galip",
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": json.dumps(config),
        "parts": json.dumps(parts),
        "aliases": json.dumps(aliases),
        "note": json.dumps(dict(note or {}), allow_nan=False),
    }
    stored = {name: tensor for name, tensor in stored.items() if name not in aliases}
    bad = [name for name, tensor in stored.items() if not tensor.isfinite().all()]
    if bad:
        raise QualityGateFailed(
            f"{path} is not written: numbers of {', '.join(bad[:5])} are NaN, infinite or too big for {dtype}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as temporary:
            save_file(stored, temporary, metadata)
    except (OSError, SafetensorError) as error:  # SafetensorError: a full disk
        raise UsageError(
            f"{path} cannot be written ({error}); choose a folder you may write to, with room enough"
        ) from error


def _twins(name: str) -> tuple[str, ...]:
    """What the image tower may call its tensor that a generator's `name` is a copy of."""
    prefix, _, rest = name.partition("clip_vit.")
    return (f"image.{rest}", f"image.transformer.{rest}") if prefix == "generator." else ()


def _aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Generator tensors that equal one of the image tower's, bit for bit: name → the tower's name."""
    aliases = {}
    for name, tensor in tensors.items():
        twin = next((twin for twin in _twins(name) if twin in tensors), None)
        if twin and torch.equal(tensor, tensors[twin]):
            aliases[name] = twin
    return aliases
