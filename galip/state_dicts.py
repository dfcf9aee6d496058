"""Files of tensors that others wrote, told apart by what is in them."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused
from torch import Tensor

from galip.pickles import read_pickled
from galip.tensors import open_weights, read_safetensors

__all__ = ["is_safetensors", "is_weights", "read_state_dict", "tensors_of"]

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How zip archives and pickles begin."""


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


def read_state_dict(path: Path) -> dict[str, Any]:
    """Return the dict in a file of `torch.save`, of TorchScript or of safetensors, tensors as stored.

    What the file holds decides, not its name. Raises `FileRefused` if it is missing, broken, or a pickle of
    anything but plain data.
    """
    if is_safetensors(path) or (path.suffix == ".safetensors" and not is_weights(path)):
        return read_safetensors(path)
    loaded = read_pickled(path, torchscript=True)
    if not isinstance(loaded, dict):
        raise FileRefused(f"{path} holds a {type(loaded).__name__}, not a dict of tensors")
    return loaded


def tensors_of(loaded: Any, where: str) -> dict[str, Tensor]:
    """Return `loaded` if it is a dict of tensors. Raises `FileRefused` otherwise."""
    if not isinstance(loaded, Mapping):
        raise FileRefused(f"{where}: expected a dict of tensors, got a {type(loaded).__name__}")
    names = [
        name if isinstance(name, str) else f"one named by a {type(name).__name__}"
        for name, value in loaded.items()
        if not isinstance(value, Tensor) or not isinstance(name, str)
    ]
    if names:
        raise FileRefused(f"{where}: these entries are not tensors: {', '.join(names[:5]):.400}")
    return dict(loaded)
