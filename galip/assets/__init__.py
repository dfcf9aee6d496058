"""The shipped default model: a small GALIP trained on icons. recipes/icons/MODEL_CARD.md describes it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from galip_runtime.bundle.manifest import read_manifest, sha256_file, verify_files
from galip_runtime.cache import cache_folder
from galip_runtime.errors import FileRefused, UsageError

from galip.progress import Progress, no_progress

__all__ = ["DEFAULT", "STYLES", "checkpoint_path", "default_bundle", "default_checkpoint"]

DEFAULT = "default"
"""What `--clip` and `--init` call the shipped checkpoint."""

STYLES = (
    "3D style",
    "flat style",
    "noto style",
    "blob style",
    "twemoji style",
    "emojione style",
    "firefox style",
)
"""The styles that the shipped model's training captions name, one per icon set."""

_log = logging.getLogger("galip")

_EXPORT_VERSION = 4
"""Raised whenever `galip export` makes other graphs from the same checkpoint."""


def default_checkpoint() -> Path:
    """Return the path of the shipped checkpoint."""
    return Path(__file__).parent / "default.safetensors"


def checkpoint_path(source: str) -> Path:
    """Return the path that `source` is, or that of the shipped checkpoint if it is `DEFAULT`."""
    return default_checkpoint() if source == DEFAULT else Path(source)


def default_bundle(progress: Progress = no_progress) -> Path:
    """Return the path of the shipped model's bundle, exported to the user's cache folder on first use.

    The bundle's name contains the checkpoint's hash and the export version, so a new version of either never
    finds an old bundle. A damaged bundle is exported again.

    Raises UsageError if there is no cache folder that only this user can write to.
    """
    checkpoint = default_checkpoint()
    name = f"default-{sha256_file(checkpoint)[:16]}-{_EXPORT_VERSION}"
    try:
        bundle = cache_folder() / name
        _export(checkpoint, bundle, progress)
    except UsageError as error:
        raise UsageError(
            f"cannot store the shipped model's bundle: {error}. Set GALIP_CACHE to another folder, or export "
            "the bundle with galip export --out BUNDLE and pass it with --bundle"
        ) from error
    return bundle


def _export(checkpoint: Path, bundle: Path, progress: Progress) -> None:
    """Export `bundle` unless it exists and is intact."""
    if _is_intact(bundle):
        return
    from galip_export import export_bundle

    try:
        export_bundle(checkpoint, bundle, progress=progress)
    except UsageError:
        if not _is_intact(bundle):  # otherwise another process has exported the same bundle meanwhile
            raise


def _is_intact(bundle: Path) -> bool:
    """Return whether `bundle` is as it was exported. Removes a damaged one."""
    try:
        verify_files(bundle, read_manifest(bundle))
    except FileRefused as error:
        if bundle.is_dir():
            _log.warning("%s: exporting it again", error)
            shutil.rmtree(bundle, ignore_errors=True)  # the export complains about anything that remains
        return False
    return True
