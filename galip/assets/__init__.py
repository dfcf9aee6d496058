"""The shipped default model: a small GALIP trained on icons. recipes/icons/MODEL_CARD.md describes it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from galip_runtime.bundle.manifest import read_manifest, verify_files
from galip_runtime.cache import cache_folder
from galip_runtime.errors import FileRefused, UsageError

__all__ = ["default_bundle", "default_checkpoint"]

_log = logging.getLogger("galip")

_GRAPHS = 3
"""counts how what `galip export` makes of a checkpoint has changed"""


def default_checkpoint() -> Path:
    """The shipped checkpoint."""
    return Path(__file__).parent / "default.safetensors"


def default_bundle(progress: Callable[[str, int, int], None] | None = None) -> Path:
    """A bundle of the shipped model, exported to the user's cache folder on first use.

    The folder is `cache_folder`. The bundle's name has the checkpoint's hash and the graphs' version in it,
    so that another version of either never meets an old bundle. One that is damaged is exported anew.

    Raises UsageError if there is no folder to keep it in, or none that nobody else may write to.
    """
    checkpoint = default_checkpoint()
    with checkpoint.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    try:
        bundle = cache_folder() / f"default-{name}-{_GRAPHS}"
        _export(checkpoint, bundle, progress)
    except UsageError as error:
        raise UsageError(
            f"the shipped model's bundle cannot be kept: {error}. Name another folder in GALIP_CACHE, or "
            "export it with galip export --out BUNDLE and name that with --bundle"
        ) from error
    return bundle


def _export(checkpoint: Path, bundle: Path, progress: Callable[[str, int, int], None] | None) -> None:
    """Export `bundle` unless it is there, and whole."""
    if _is_whole(bundle):
        return
    from galip_export import export_bundle

    try:
        export_bundle(checkpoint, bundle, progress=progress)
    except UsageError:
        if not _is_whole(bundle):  # else another process was faster, and its bundle is this one
            raise


def _is_whole(bundle: Path) -> bool:
    """Whether `bundle` is there and as it was exported. What is damaged is removed."""
    try:
        verify_files(bundle, read_manifest(bundle))
    except FileRefused as error:
        if bundle.is_dir():
            _log.warning("%s: it is exported anew", error)
            shutil.rmtree(bundle, ignore_errors=True)  # what remains is what the export will complain of
        return False
    return True
