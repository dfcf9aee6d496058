"""Our checkpoint format: one safetensors file whose metadata holds the whole config.

A `galip` file has some of the parts text, image, generator, discriminator; a `clip` file has CLIP's two
towers under CLIP's own tensor names. Tensors are stored once: `aliases` in the metadata names those that
equal another bit for bit (the generator's copy of the image tower).
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.files import open_regular
from galip_runtime.strict_json import parse, typed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from galip.clip import build_clip
from galip.config import ClipConfig, GalipConfig
from galip.model import Galip

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
_MAX_HEADER_BYTES = 10**8  # as the safetensors reader has it
_MAX_BYTES = 2**36  # of a file whose header cannot be read
PARTS = ("text", "image", "generator", "discriminator")
"""Attributes of `Galip` that a file may hold; those it lacks are None after loading."""

PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)
"""Dtypes that weights and counters of a model may be stored in."""
STORED_DTYPES = frozenset({"F16", "BF16", "F32", "F64", "I32", "I64"})
"""The same, by safetensors' names."""


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
    load_weights(model, _tensors(path, info), str(path))
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
    with torch.device("meta"):  # compared first: the config may claim gigabytes that the file doesn't hold
        blank = build_clip(info.config)
    tensors = _tensors(path, info)
    load_weights(blank, tensors, str(path))
    clip = build_clip(info.config)
    load_weights(clip, tensors, str(path))
    return clip, info.config


def _check_plain(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises `FileRefused` naming a tensor that isn't dense numbers in memory: quantised, sparse, meta,
    complex, of 8-bit floats, or a small storage stretched to a large shape.
    """
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        if not plain or tensor.dtype not in PLAIN_DTYPES:
            raise FileRefused(
                f"{source}: {name} is {tensor.dtype} ({tensor.layout}, on {tensor.device}); weights must be "
                "dense tensors of float16, bfloat16, float32 or float64"
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FileRefused(f"{source}: {name} {tuple(tensor.shape)} is larger than what is stored of it")


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `module` the `tensors`; every name and shape must match. A blank module takes them without a copy.

    Raises `FileRefused` listing the missing, unknown and misshapen tensors of `source`.
    """
    _check_plain(tensors, source)
    own = module.state_dict()
    problems = [f"missing: {name} {tuple(own[name].shape)}" for name in own if name not in tensors]
    problems += [f"unknown: {name} {tuple(tensors[name].shape)}" for name in tensors if name not in own]
    problems += [
        f"misshapen: {name} is {tuple(tensors[name].shape)}, should be {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems += [
        f"of another type: {name} is {tensors[name].dtype}, should be {own[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    if problems:
        shown = problems[:20] + ([f"… and {len(problems) - 20} more"] if len(problems) > 20 else [])
        raise FileRefused(f"{source} does not fit the model's shape:", *shown)
    bad = [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise FileRefused(
            f"{source} has NaN or infinite numbers in {', '.join(bad[:5])}; the file is damaged or "
            "its training diverged"
        )
    blank = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(dict(tensors), assign=blank)


def is_ours(path: Path) -> bool:
    """Whether `path` is a safetensors file that says it is of our format."""
    try:
        if not path.is_file():  # a FIFO or a device would block
            return False
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == "galip"
    except (SafetensorError, OSError):
        return False


def read_info(path: Path) -> CheckpointInfo:
    """What the checkpoint at `path` says of itself, without reading its tensors.

    Raises `FileRefused` when it is missing, no safetensors file, or not of our format.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
            raise FileRefused(f"{path} {what}; give a checkpoint file (.safetensors)")
        _check_length(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(entry.get_shape()) for name, entry in slices.items()}
            dtypes = tuple(sorted({entry.get_dtype() for entry in slices.values()}))
    except (SafetensorError, OSError, MemoryError) as error:  # MemoryError: more than can be mapped
        hint = (
            "; a released .pth file must go through `galip convert` first"
            if path.suffix in (".pth", ".pt")
            else ""
        )
        raise FileRefused(f"{path} is no whole safetensors file ({error}){hint}") from error
    if metadata.get("format") != "galip":
        raise FileRefused(
            f"{path} is a safetensors file, but not one of galip's; `galip convert` makes those"
        )
    for name, entry in slices.items():
        if entry.get_dtype() not in STORED_DTYPES:
            raise FileRefused(
                f"{path}: {name} is {entry.get_dtype()}; weights must be {', '.join(sorted(STORED_DTYPES))}"
            )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise FileRefused(
            f"{path} has format version {metadata.get('format_version')}, this galip reads "
            f"{FORMAT_VERSION}; use the galip version that wrote it, or update"
        )
    try:
        fields = {name: parse(metadata[name]) for name in ("config", "parts", "note", "aliases")}
        kind, parts = metadata["kind"], typed(tuple[str, ...], fields["parts"], "parts")
        if kind not in ("galip", "clip") or not set(parts) <= set(PARTS):
            raise FileRefused(f"kind {kind!r} with parts {parts}")
        config_class = GalipConfig if kind == "galip" else ClipConfig
        return CheckpointInfo(
            kind,
            config_class.from_dict(fields["config"]),
            parts,
            typed(Mapping[str, Any], fields["note"], "note"),
            shapes,
            dtypes,
            typed(Mapping[str, str], fields["aliases"], "aliases"),
        )
    except (KeyError, FileRefused, UsageError) as error:
        raise FileRefused(f"{path}: its metadata is damaged ({error})") from error


def _check_length(path: Path) -> None:
    """Raises `FileRefused` for a file that is longer than its header says: it would be mapped whole.

    Whatever else is wrong with it, the reader says.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        try:
            header = json.loads(file.read(length)) if length <= _MAX_HEADER_BYTES else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            surplus = size - 8 - length - max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            surplus = size - _MAX_BYTES
    if surplus > 0:
        raise FileRefused(f"{path} is {surplus:,} bytes longer than its header says; it was altered")


def _tensors(path: Path, info: CheckpointInfo) -> dict[str, Tensor]:
    """All tensors of the file in float32, aliases resolved."""
    with safe_open(path, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stored = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()
    }
    dangling = sorted(set(info.aliases.values()) - stored.keys())
    if dangling:
        raise FileRefused(f"{path}: its aliases name tensors it doesn't have: {', '.join(dangling[:5])}")
    return stored | {name: stored[target].clone() for name, target in info.aliases.items()}


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
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            save_file(stored, temporary, metadata)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"cannot write {path}: {error}; choose a folder you may write to, with room enough"
        ) from error


def _aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Generator tensors that equal one of the image tower's, bit for bit: name → the tower's name."""
    aliases = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition("clip_vit.")
        if prefix != "generator.":
            continue
        twin = next(
            (twin for twin in (f"image.{rest}", f"image.transformer.{rest}") if twin in tensors), None
        )
        if twin and torch.equal(tensor, tensors[twin]):
            aliases[name] = twin
    return aliases
