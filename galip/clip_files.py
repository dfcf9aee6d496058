"""CLIP's towers from files of OpenAI, open_clip and transformers, and from folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from galip_runtime.errors import FileRefused
from torch import Tensor

from galip.clip import load_pretrained_clip
from galip.clip_names import with_clip_names
from galip.clip_tags import find_pretrained, is_clip_path
from galip.headers import weights_in
from galip.state_dicts import read_state_dict, tensors_of

__all__ = ["clip_state_dict"]


def clip_state_dict(clip: str) -> dict[str, Tensor]:
    """Return CLIP's two towers as stored, under OpenAI's names.

    `clip`: a file of OpenAI (a TorchScript archive or a state dict), open_clip or transformers, told apart by
    what it holds; a folder with one of them; or an open_clip `MODEL:TAG`, a bare tag being one of
    ViT-B-32-quickgelu. Raises `FileRefused` or `UsageError` if there is no such file, model or tag.
    """
    if is_clip_path(clip):
        path = Path(clip)
        return _read_folder(path) if path.is_dir() else _read_file(path)
    pretrained = find_pretrained(clip)
    if (file := pretrained.local_file()) is not None:
        return _read_file(file)
    return with_clip_names(load_pretrained_clip(pretrained.model, pretrained.tag), clip)


def _read_file(path: Path) -> dict[str, Tensor]:
    """Return the towers in the file `path`. Raises `FileRefused`."""
    loaded = read_state_dict(path)
    return with_clip_names(tensors_of(loaded.get("state_dict", loaded), str(path)), str(path))


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """Return the towers in the one file of `folder` that has them, or in several that have the same.

    Raises `FileRefused` if none has them, or if they differ.
    """
    found: dict[Path, dict[str, Tensor]] = {}
    others = {}
    for path in weights_in(folder):
        try:
            towers = _read_file(path)
        except FileRefused as error:
            others[path] = error
            continue
        if found and not _same(towers, next(iter(found.values()))):
            raise FileRefused(
                f"{folder} holds more than one CLIP: {next(iter(found)).name} and {path.name} differ; name "
                "the file"
            )
        found[path] = towers if not found else {}
    if not found:
        raise FileRefused(
            f"{folder} holds no file with CLIP's weights, neither OpenAI's, open_clip's nor transformers':",
            *map(str, others.values()),
        )
    return next(iter(found.values()))


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two towers have the same numbers, whatever they are stored as."""
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and torch.equal(one[name].float(), other[name].float())
        for name in one
    )
