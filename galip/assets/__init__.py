"""The shipped default model: a small GALIP trained on icons. recipes/icons/MODEL_CARD.md describes it."""

from __future__ import annotations

from pathlib import Path

from galip_runtime.shipped import default_bundle

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


def default_checkpoint() -> Path:
    """Return the path of the shipped checkpoint."""
    return Path(__file__).parent / "default.safetensors"


def checkpoint_path(source: str) -> Path:
    """Return the path that `source` is, or that of the shipped checkpoint if it is `DEFAULT`."""
    return default_checkpoint() if source == DEFAULT else Path(source)
