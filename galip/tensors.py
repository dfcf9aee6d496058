"""Files of tensors that may lie: names, dtypes and shapes are checked before anything is built or converted.

Only plain tensors of floating-point numbers are weights. Quantised, sparse, complex, meta and nested tensors,
tensors of integers and of 8 bits or fewer are refused by their name.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from galip_runtime.bundle.decoding import parse
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

__all__ = [
    "Header",
    "TensorSpec",
    "as_weights",
    "check_kinds",
    "open_weights",
    "read_header",
    "read_safetensors",
]

MOST_BYTES = 32 * 2**30
"""Of a file of weights; the released models have 1.3 GB."""
MOST_HEADER_BYTES = 4 * 2**20
"""Of a safetensors header; the released models' has some 200 KB."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of a number of each of safetensors' dtypes."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_TORCH_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class TensorSpec:
    """A stored tensor, without its numbers."""

    dtype: str
    """In safetensors' names: F32, F16, …"""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    metadata: dict[str, str]
    tensors: dict[str, TensorSpec]


def open_weights(path: Path) -> BinaryIO:
    """The regular file at `path`, open for reading. Raises `FileRefused`."""
    try:
        return open_regular(path, MOST_BYTES)
    except FileRefused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise FileRefused(f"{path} does not exist; give a file of weights") from error
        raise


def read_header(path: Path) -> Header:
    """The header of the safetensors file `path`; nothing else of it is read.

    Raises `FileRefused` when it is no regular file, or its header is damaged, too long, names a tensor twice
    or does not describe every byte of the file once.
    """
    with open_weights(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _parsed_header(*_split(file.read(8), file, size))
        except (FileRefused, OSError) as error:
            hint = (
                "; a released .pth file must go through `galip convert` first"
                if path.suffix in (".pth", ".pt")
                else ""
            )
            raise FileRefused(f"{path} is no whole safetensors file ({error}){hint}") from error


def _split(start: bytes, file: Any, size: int) -> tuple[bytes, int]:
    """The header's JSON, and how many bytes of tensors come after it."""
    if len(start) < 8:
        raise FileRefused("it has fewer than 8 bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise FileRefused(f"its header would have {length:,} bytes")
    return file.read(length), size - 8 - length


def _parsed_header(text: bytes, size: int) -> Header:
    data = parse(text)
    if not isinstance(data, dict):
        raise FileRefused("its header is no object")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileRefused("its metadata is no object of texts")
    spans, tensors = [], {}
    for name, entry in data.items():
        tensors[name], span = _tensor_spec(name, entry)
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise FileRefused("its tensors overlap or leave gaps")
        end = last
    if end != size:
        raise FileRefused(f"its tensors have {end:,} bytes, it holds {size:,}; it may be cut short")
    return Header(metadata, tensors)


def _tensor_spec(name: str, entry: Any) -> tuple[TensorSpec, tuple[int, int]]:
    """The tensor that `entry` describes and where its first byte lies and its last one ends."""
    wrong = FileRefused(f"tensor {name!r:.80} is described by {entry!r:.120}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise wrong
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**48 for number in numbers
        ):
            raise wrong
    if len(shape) > 16 or len(span) != 2 or 8 * (span[1] - span[0]) != math.prod(shape) * _BITS[dtype]:
        raise wrong
    return TensorSpec(dtype, tuple(shape)), (span[0], span[1])


def read_safetensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors `names` of the safetensors file `path`, all by default, as stored. Raises `FileRefused`."""
    header = read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in (header.tensors if names is None else names)}
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        # AttributeError: a dtype that this version of PyTorch does not have
        raise FileRefused(f"{path} cannot be read as safetensors ({error})") from error


def check_kinds(kinds: Mapping[str, str | Tensor], where: str) -> None:
    """Raise `FileRefused` naming the first tensors of `where` that are no plain floating-point ones.

    `kinds`: each tensor, or its dtype in safetensors' names.
    """
    odd = [f"{name} ({kind})" for name, value in kinds.items() if (kind := _oddity(value))]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise FileRefused(
            f"{where} has tensors that are no plain ones of fp64, fp32, fp16 or bf16: "
            f"{', '.join(odd[:5])}{more}; convert or dequantise them first, and save them as fp32"
        )


def _oddity(value: str | Tensor) -> str:
    """What is odd about a tensor, or a dtype in safetensors' names; empty for nothing."""
    if isinstance(value, str):
        return "" if value in _FLOATS else value
    if type(value) not in (Tensor, nn.Parameter):
        return f"a {type(value).__name__}"
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return f"quantised, {value.dtype}"
    if value.layout is not torch.strided:
        return f"sparse, {value.layout}"
    if value.is_meta:
        return "meta, without numbers"
    return "" if value.dtype in _TORCH_FLOATS else str(value.dtype)


def as_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as contiguous float32, none sharing memory with another. They fit the model already."""
    weights, storages = {}, set()
    for name, tensor in tensors.items():
        weight = tensor.detach().float().contiguous()
        storage = weight.untyped_storage().data_ptr()
        weights[name] = weight.clone() if storage in storages else weight
        storages.add(storage)
    return weights
