"""Files of tensors that others wrote, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused
from torch import Tensor

from galip.headers import is_safetensors, is_weights
from galip.pickles import read_pickled
from galip.tensors import read_safetensors

__all__ = ["read_state_dict", "tensors_of"]


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
