"""Loading a model, for `generate`, `interpolate` and `sample-grid`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from galip_runtime.errors import UsageError

if TYPE_CHECKING:
    from galip_runtime import TextToImage

__all__ = ["load_model"]


def load_model(
    bundle: Path | None,
    checkpoint: Path | None,
    device: str,
    precision: str,
    threads: int | None,
    fallback: bool,
    check_size: Callable[[int, int], object],
) -> TextToImage:
    """Load `bundle`, or `checkpoint` in eager PyTorch, or the shipped model if neither is given.

    Before that, `check_size` gets the height and width of its pictures.
    """
    if checkpoint is not None:
        if bundle is not None:
            raise UsageError("give --bundle or --model, not both")
        if fallback:
            raise UsageError("--fallback is for bundles: leave it out with --model")
        from galip.early_checks import check_eager

        generator = check_eager(checkpoint, device, precision, threads).generator
        check_size(generator.image_size, generator.image_size)
        from galip.eager import load_eager

        return load_eager(checkpoint, device, precision, threads)
    import galip_runtime
    from galip_runtime.bundle.manifest import read_manifest
    from galip_runtime.shipped import read_default_manifest

    dimensions = (read_default_manifest() if bundle is None else read_manifest(bundle)).dimensions
    check_size(dimensions.image_height, dimensions.image_width)
    return galip_runtime.load(bundle, device=device, precision=precision, threads=threads, fallback=fallback)
