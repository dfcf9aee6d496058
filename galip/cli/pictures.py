"""Loading a model and the size of its pictures, for `generate`, `interpolate` and `sample-grid`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from galip_runtime.errors import UsageError

if TYPE_CHECKING:
    from galip_runtime import TextToImage

__all__ = ["load_model", "picture_size"]


def load_model(
    bundle: Path | None,
    checkpoint: Path | None,
    device: str,
    precision: str,
    threads: int | None,
    fallback: bool = False,
) -> TextToImage:
    """Load `bundle`, or `checkpoint` in eager PyTorch, or the shipped model if neither is given."""
    if checkpoint is not None:
        if bundle is not None:
            raise UsageError("give --bundle or --model, not both")
        if fallback:
            raise UsageError("--fallback is for bundles: leave it out with --model")
        from galip.early_checks import check_eager

        check_eager(checkpoint, device, precision)
        from galip.eager import load_eager

        return load_eager(checkpoint, device, precision, threads)
    import galip_runtime

    return galip_runtime.load(bundle, device=device, precision=precision, threads=threads, fallback=fallback)


def picture_size(model: TextToImage) -> tuple[int, int]:
    """Return the height and width of the pictures that `model` generates."""
    return model.dimensions.image_height, model.dimensions.image_width
