"""The recipe of the shipped model: icons and their captions, training, model card. In no wheel.

`make default-model` runs it, with `recipes` on PYTHONPATH. `galip data icons` only renders the icons.
"""

from pathlib import Path

__all__ = ["CARD"]

CARD = Path(__file__).parent / "card"
"""Folder of the model card's pictures, figures and logs."""
