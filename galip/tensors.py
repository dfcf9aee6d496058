"""Reading files of tensors without trusting them.

Names, dtypes and shapes are checked before anything is built or converted. Only plain floating-point tensors
are weights: quantised, sparse, complex, meta and nested tensors, integers and formats of 8 bits or fewer are
refused by name.
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
    "check_dtypes",
    "open_weights",
    "read_header",
    "read_safetensors",
]

MOST_BYTES = 32 * 2**30
"""Largest file of weights; the released models have 1.3 GB."""
MOST_HEADER_BYTES = 4 * 2**20
"""Largest safetensors header; the released models' has about 200 KB."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits per number of each safetensors dtype."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_TORCH_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of a stored tensor."""

    dtype: str
    """In safetensors' names: F32, F16, …"""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file."""

    metadata: dict[str, str]
    tensors: dict[str, TensorSpec]


def open_weights(path: Path) -> BinaryIO:
    """Open the regular file at `path` for reading. Raises `FileRefused`."""
    try:
        return open_regular(path, MOST_BYTES)
    except FileRefused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise FileRefused(f"{path} does not exist; give a file of weights") from error
        raise


def read_header(path: Path) -> Header:
    """Return the header of the safetensors file `path`, reading nothing else.

    Raises `FileRefused` if the file is not a regular one, or if its header is damaged, too long, names a
    tensor twice or does not describe every byte of the file once.
    """
    with open_weights(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _parsed_header(*_split(file.read(8), file, size))
        except (FileRefused, OSError) as error:
            hint = (
                "; convert a released .pth file with `galip convert` first"
                if path.suffix in (".pth", ".pt")
                else ""
            )
            raise FileRefused(f"{path} is not an intact safetensors file ({error}){hint}") from error


def _split(start: bytes, file: Any, size: int) -> tuple[bytes, int]:
    """Return the header's JSON, and the number of bytes of tensors after it."""
    if len(start) < 8:
        raise FileRefused("it has fewer than 8 bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise FileRefused(f"its header would have {length:,} bytes")
    return file.read(length), size - 8 - length


def _parsed_header(text: bytes, size: int) -> Header:
    data = parse(text)
    if not isinstance(data, dict):
        raise FileRefused("its header is not an object")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileRefused("its metadata is not an object of strings")
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
        raise FileRefused(f"its tensors have {end:,} bytes, but it holds {size:,}; it may be truncated")
    return Header(metadata, tensors)


def _tensor_spec(name: str, entry: Any) -> tuple[TensorSpec, tuple[int, int]]:
    """Return the tensor that `entry` describes, and where its bytes begin and end."""
    malformed = FileRefused(f"tensor {name!r:.80} is described by {entry!r:.120}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise malformed
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise malformed
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**48 for number in numbers
        ):
            raise malformed
    if len(shape) > 16 or len(span) != 2 or 8 * (span[1] - span[0]) != math.prod(shape) * _BITS[dtype]:
        raise malformed
    return TensorSpec(dtype, tuple(shape)), (span[0], span[1])


def read_safetensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors `names`, by default all, of the safetensors file `path`. Raises `FileRefused`."""
    header = read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in (header.tensors if names is None else names)}
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        # AttributeError: a dtype that this version of PyTorch lacks
        raise FileRefused(f"cannot read {path} as safetensors ({error})") from error


def check_dtypes(tensors: Mapping[str, str | Tensor], where: str) -> None:
    """Raise `FileRefused` naming the first tensors of `where` that are not plain floating-point tensors.

    `tensors`: each tensor, or its dtype in safetensors' names.
    """
    odd = [f"{name} ({oddity})" for name, value in tensors.items() if (oddity := _oddity(value))]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise FileRefused(
            f"{where} has tensors that are not plain fp64, fp32, fp16 or bf16: "
            f"{', '.join(odd[:5])}{more}; convert or dequantise them first, and save them as fp32"
        )


def _oddity(value: str | Tensor) -> str:
    """Return what is odd about a tensor, or a dtype in safetensors' names; empty if nothing is."""
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
        return "meta, without values"
    return "" if value.dtype in _TORCH_FLOATS else str(value.dtype)


def as_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as contiguous float32, none sharing memory with another.

    Their shapes have been checked, so none is larger than the model.
    """
    weights, storages = {}, set()
    for name, tensor in tensors.items():
        weight = tensor.detach().float().contiguous()
        storage = weight.untyped_storage().data_ptr()
        weights[name] = weight.clone() if storage in storages else weight
        storages.add(storage)
    return weights
