"""The shipped default model: a small GALIP trained on icons. recipes/icons/MODEL_CARD.md describes it."""

from __future__ import annotations

from pathlib import Path

from galip_runtime.shipped import default_bundle

__all__ = ["STYLES", "default_bundle", "default_checkpoint"]

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
