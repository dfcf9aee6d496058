"""Our checkpoint format: one safetensors file whose metadata holds the whole config.

A `galip` file has some of the parts text, image, generator, discriminator; a `clip` file has CLIP's two
towers under CLIP's own tensor names. A tensor is stored once: `aliases` in the metadata names the tensors
that equal another bit for bit (the generator's copy of the image tower).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.files import staged_file
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from galip.checkpoint_info import (
    FORMAT_VERSION,
    PARTS,
    CheckpointInfo,
    image_tower_names,
    is_galip_checkpoint,
    read_galip_info,
    read_info,
)
from galip.clip import build_clip
from galip.config import ClipConfig, GalipConfig
from galip.model import Galip
from galip.tensors import as_weights, check_dtypes, read_safetensors

__all__ = [
    "PARTS",
    "CheckpointInfo",
    "blank_galip",
    "is_galip_checkpoint",
    "load_clip",
    "load_galip",
    "load_weights",
    "read_info",
    "save_clip",
    "save_galip",
]


def save_galip(
    path: Path,
    model: Galip,
    *,
    parts: Iterable[str] = PARTS,
    dtype: torch.dtype = torch.float32,
    note: Mapping[str, Any] | None = None,
) -> None:
    """Write the `parts` of `model` to `path` as `dtype`, whole or not at all.

    Raises `UsageError` if a part is unknown or missing in the model, or if `path` cannot be written;
    `QualityGateFailed` if a weight is not finite or too large for `dtype`.
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
    """Write CLIP's two towers to `path` under CLIP's own tensor names, whole or not at all.

    Raises as `save_galip`.
    """
    _write(
        path, "clip", dataclasses.asdict(config), ("text", "image"), clip.state_dict(), torch.float32, note
    )


def load_galip(path: Path, *, needs: Iterable[str] = ("generator",)) -> Galip:
    """Return the model in `path`: float32, on the CPU, in evaluation mode; parts the file lacks are None.

    Raises `FileRefused` if the file is not an intact GALIP checkpoint, or lacks a part in `needs`.
    """
    info = read_galip_info(path, needs)
    assert isinstance(info.config, GalipConfig)
    model = blank_galip(info.config, info.parts)
    load_weights(model, _read_tensors(path, info, model), str(path))
    return model.eval()


def blank_galip(config: GalipConfig, parts: Iterable[str]) -> Galip:
    """Return a model on the meta device for `load_weights` to fill: initialising takes seconds."""
    with torch.device("meta"):
        model = Galip(config)
    for part in set(PARTS) - set(parts):
        setattr(model, part, None)
    return model


def load_clip(path: Path) -> tuple[Any, ClipConfig]:
    """Return the CLIP in `path` (kind `clip`) as an open_clip model and its config: float32, not yet frozen.

    Raises `FileRefused` if the file is not an intact CLIP checkpoint.
    """
    info = read_info(path)
    if not isinstance(info.config, ClipConfig):
        raise FileRefused(
            f"{path} is a GALIP checkpoint; give a CLIP checkpoint (galip train-clip writes one)"
        )
    with torch.device("meta"):
        clip = build_clip(info.config)
    load_weights(clip, _read_tensors(path, info, clip), str(path))
    mask = clip.attn_mask.new_full(clip.attn_mask.shape, -torch.inf, device="cpu")
    clip.attn_mask = mask.triu(1)  # a buffer that state dicts leave out
    return clip, info.config


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors` into `module` as float32. Every name and shape must match.

    A module on the meta device takes the tensors without a copy. Raises `FileRefused` listing the missing,
    unknown and misshapen tensors of `source`, or naming those that are not plain floats or not finite.
    """
    check_dtypes(tensors, source)
    _check_fit(module, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    weights = as_weights(tensors)
    if bad := _not_finite(weights):
        raise FileRefused(
            f"{source} has NaN or infinity in {', '.join(bad[:5])}; the file is damaged or its training "
            "diverged"
        )
    is_meta = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(weights, assign=is_meta)


def _check_fit(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise `FileRefused` unless `module` has tensors of exactly these names and shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [
        f"misshapen: {name} is {shapes[name]}, should be {expected[name]}"
        for name in expected
        if name in shapes and shapes[name] != expected[name]
    ]
    problems += [f"unknown: {name} {shapes[name]}" for name in shapes if name not in expected]
    problems += [f"missing: {name} {expected[name]}" for name in expected if name not in shapes]
    if problems:
        details = [f"{problem:.200}" for problem in problems[:20]]
        more = [f"… and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise FileRefused(f"{source} does not fit the model:", *details, *more)


def _read_tensors(path: Path, info: CheckpointInfo, module: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of the file as stored, aliases resolved, if names and shapes match `module`."""
    dangling = sorted(set(info.aliases.values()) - info.shapes.keys())
    if dangling:
        raise FileRefused(f"{path}: its aliases name tensors that it lacks: {', '.join(dangling[:5])}")
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
    converted = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    aliases = _find_aliases(converted)
    metadata = {
        "format": "galip",
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": json.dumps(config),
        "parts": json.dumps(parts),
        "aliases": json.dumps(aliases),
        "note": json.dumps(dict(note or {}), allow_nan=False),
    }
    stored = {name: tensor for name, tensor in converted.items() if name not in aliases}
    if bad := _not_finite(stored):
        raise QualityGateFailed(
            f"{path} was not written: {', '.join(bad[:5])} have values that are NaN, infinite or too large "
            f"for {dtype}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as temporary:
            save_file(stored, temporary, metadata)
    except (OSError, SafetensorError) as error:  # SafetensorError: the disk is full
        raise UsageError(
            f"cannot write {path} ({error}); choose a folder that you can write to and that has room"
        ) from error


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors with NaN or infinity."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def _find_aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the generator's tensors that equal the image tower's bit for bit: name → the tower's name."""
    aliases = {}
    for name, tensor in tensors.items():
        twin = next((twin for twin in image_tower_names(name) if twin in tensors), None)
        if twin and torch.equal(tensor, tensors[twin]):
            aliases[name] = twin
    return aliases
