"""Reading files of tensors without trusting them.

Names, dtypes and shapes are checked before anything is built or converted. Only plain floating-point tensors
are weights: quantised, sparse, complex, meta and nested tensors, integers and formats of 8 bits or fewer are
refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from galip_runtime.errors import FileRefused
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from galip.headers import Header, TensorSpec, open_weights, read_header, refuse_dtypes

__all__ = [
    "Header",
    "TensorSpec",
    "as_weights",
    "check_dtypes",
    "open_weights",
    "read_header",
    "read_safetensors",
]

_TORCH_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


def read_safetensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors `names`, by default all, of the safetensors file `path`. Raises `FileRefused`."""
    header = read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in (header.tensors if names is None else names)}
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        # AttributeError: a dtype that this version of PyTorch lacks
        raise FileRefused(f"cannot read {path} as safetensors ({error})") from error


def check_dtypes(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise `FileRefused` naming the first tensors of `where` that are not plain floating-point tensors."""
    refuse_dtypes({name: odd for name, tensor in tensors.items() if (odd := _oddity(tensor))}, where)


def _oddity(value: Tensor) -> str:
    """Return what is odd about a tensor; empty if nothing is."""
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
