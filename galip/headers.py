"""Headers of safetensors files, and how files of weights begin: read without PyTorch, and without trust."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from galip_runtime.bundle.decoding import parse
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular

__all__ = [
    "Header",
    "TensorSpec",
    "check_dtype_names",
    "is_safetensors",
    "is_weights",
    "open_weights",
    "read_header",
    "refuse_dtypes",
    "weights_in",
]

MOST_BYTES = 32 * 2**30
"""Largest file of weights; the released models have 1.3 GB."""
MOST_FILES = 16
"""Most files of weights in a folder that is searched."""
MOST_HEADER_BYTES = 4 * 2**20
"""Largest safetensors header; the released models' has about 200 KB."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits per number of each safetensors dtype."""
_FLOATS = {"F64", "F32", "F16", "BF16"}

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How zip archives and pickles begin."""


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


def check_dtype_names(dtypes: Mapping[str, str], where: str) -> None:
    """Raise `FileRefused` naming the first tensors of `where` that are not plain floating-point tensors."""
    refuse_dtypes({name: dtype for name, dtype in dtypes.items() if dtype not in _FLOATS}, where)


def refuse_dtypes(odd: Mapping[str, str], where: str) -> None:
    """Raise `FileRefused` naming the first tensors of `odd` and what is odd about each, if there are any."""
    if odd:
        named = [f"{name} ({oddity})" for name, oddity in odd.items()]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise FileRefused(
            f"{where} has tensors that are not plain fp64, fp32, fp16 or bf16: "
            f"{', '.join(named[:5])}{more}; convert or dequantise them first, and save them as fp32"
        )


def is_safetensors(path: Path) -> bool:
    """Return whether `path` begins as safetensors files do. Raises `FileRefused` if it cannot be read."""
    with open_weights(path) as file:
        start = file.read(9)
        size = os.fstat(file.fileno()).st_size
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8


def is_weights(path: Path) -> bool:
    """Return whether `path` begins as files of weights do. Raises `FileRefused` if it cannot be read."""
    with open_weights(path) as file:
        start = file.read(4)
    return start.startswith(_PICKLES) or is_safetensors(path)


def weights_in(folder: Path) -> list[Path]:
    """Return the files of weights in `folder`, safetensors first.

    A model hub's cache keeps them in the folder `snapshots`, one folder a revision. Raises `FileRefused` if
    there are none or too many.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise FileRefused(f"{folder} cannot be read ({error.strerror})") from error
    weights = [path for path in files if is_weights(path)]
    snapshots = [path for path in (folder / "snapshots").glob("*") if path.is_dir()]
    if not weights and len(snapshots) == 1:
        return weights_in(snapshots[0])
    if not 1 <= len(weights) <= MOST_FILES:
        raise FileRefused(f"{folder} holds {len(weights)} files of weights; name the file that you mean")
    return sorted(weights, key=lambda path: not is_safetensors(path))
