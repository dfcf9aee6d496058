"""The numbers of a graph's stored tensors, read from its file one tensor at a time."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.bundle.onnx_reader import OnnxGraph
from galip_runtime.bundle.protobuf import read_fields

__all__ = ["read_floats"]

_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}
"""by TensorProto.DataType"""
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_RAW = 2, 4, 9  # field numbers of onnx.proto


def read_floats(path: str | os.PathLike[str], graph: OnnxGraph, name: str) -> npt.NDArray[np.float32]:
    """Read the tensor `name`, float32 or float16, which `graph` of the file `path` stores, as float32.

    Raises ValueError for another tensor, and OSError where the file cannot be read.
    """
    if name not in graph.constants:
        raise ValueError(f"{name!r:.80} is not stored in the file")
    sizes = graph.constants[name].sizes
    if name in graph.external:
        external = graph.external[name]
        dtype = _dtype(name, external.kind)
        numbers = np.fromfile(path, dtype, external.length // dtype.itemsize, offset=external.offset)
    else:
        numbers = _decoded(name, graph.tensors[name])
    if numbers.size != np.prod(sizes, dtype=np.int64):
        raise ValueError(f"{name!r:.80} has {numbers.size:,} numbers and the sizes {sizes}")
    return numbers.reshape(sizes).astype(np.float32, copy=False)


def _decoded(name: str, encoded: bytes) -> npt.NDArray[np.float32]:
    """Return the numbers of a tensor that is encoded as a field of the graph."""
    (message,) = read_fields(encoded, 0, len(encoded))
    fields = list(read_fields(encoded, message.begin, message.end))
    dtype = _dtype(name, next(field.value for field in fields if field.number == _TENSOR_TYPE))
    raw = b"".join(encoded[part.begin : part.end] for part in fields if part.number == _TENSOR_RAW)
    if raw or dtype != _TYPES[1]:
        return np.frombuffer(raw, dtype)
    floats = b"".join(encoded[part.begin : part.end] for part in fields if part.number == _TENSOR_FLOATS)
    return np.frombuffer(floats, dtype)


def _dtype(name: str, kind: int) -> np.dtype[Any]:
    if kind not in _TYPES:
        raise ValueError(f"{name!r:.80} is neither float32 nor float16")
    return _TYPES[kind]
