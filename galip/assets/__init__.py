"""The shipped default model: a small GALIP trained on icons. MODEL_CARD.md beside this file describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from galip_runtime.errors import UsageError
from galip_runtime.folders import cache_home

__all__ = ["default_bundle", "default_checkpoint"]

_GRAPHS = 2
"""counts how what `galip export` makes of a checkpoint has changed"""


def default_checkpoint() -> Path:
    """The shipped checkpoint."""
    return Path(__file__).parent / "default.safetensors"


def default_bundle(progress: Callable[[str, int, int], None] | None = None) -> Path:
    """A bundle of the shipped model, exported to the user's cache folder on first use.

    The folder is `cache_home`. The bundle's name has the checkpoint's hash and the graphs' version in it, so
    that another version of either never meets an old bundle.
    """
    checkpoint = default_checkpoint()
    with checkpoint.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    bundle = cache_home() / f"default-{name}-{_GRAPHS}"
    if not bundle.exists():
        from galip_export import export_bundle

        try:
            export_bundle(checkpoint, bundle, progress=progress)
        except UsageError:
            if not bundle.exists():  # else another process was faster, and its bundle is this one
                raise
    return bundle
