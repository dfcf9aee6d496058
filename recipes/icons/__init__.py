"""How the shipped model is made: icons and their captions, training, model card. In no wheel.

`make default-model` runs it, with `recipes` on PYTHONPATH; `galip data icons` draws the icons alone.
"""

from pathlib import Path

__all__ = ["CARD"]

CARD = Path(__file__).parent / "card"
"""Pictures, figures and logs of the model card."""
