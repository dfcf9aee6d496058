"""Whether the picture is still the same: each subject's against eager fp32's, of equal prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from galip_runtime.arrays import batches, to_uint8
from galip_runtime.drawer import Drawer
from numpy.typing import NDArray

__all__ = ["Parity", "draw_raw", "parity_of", "side_by_side"]

AMPLIFIED = 32
"""How much larger the difference is shown than it is."""

Raw = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """Of a subject's pictures against the reference's. Absolute errors are of the raw pictures, nominally in
    [-1, 1]; PSNR and SSIM of what is shown, 8 bits. None where no picture is finite.
    """

    pictures: int
    not_finite: int
    """Pictures with NaN or infinity; they are in no other figure."""
    max_abs: float | None
    mean_abs: float | None
    psnr_p1: float | None
    """First percentile, dB; equal pictures count as infinite, shown as None."""
    psnr_median: float | None
    ssim_min: float | None
    ssim_median: float | None
    worst: int | None
    """Number of the picture with the largest absolute error."""
    notes: list[str] = field(default_factory=list)


def draw_raw(drawer: Drawer, prompts: Sequence[str], seeds: Sequence[int], batch: int = 1) -> Raw:
    """Pictures as the generator gives them, float32 (N, 3, H, W), NaN and infinity left in."""
    sentence = drawer.encode_text(list(prompts))
    noise = drawer.noise(seeds)
    return np.concatenate(
        [drawer._run_generator(noise[part], sentence[part]) for part in batches(len(noise), batch)]
    )


def parity_of(reference: Raw, result: Raw) -> Parity:
    """`result` (N, 3, H, W) against `reference` of the same shape, which is finite."""
    fine = np.isfinite(result).all(axis=(1, 2, 3))
    broken = int((~fine).sum())
    if not fine.any():
        return Parity(len(result), broken, None, None, None, None, None, None, None)
    errors = np.abs(reference[fine].astype(np.float64) - result[fine])
    largest = errors.max(axis=(1, 2, 3))
    shown, notes = [to_uint8(pictures[fine]) for pictures in (reference, result)], []
    psnr = _psnr(*shown)
    try:
        ssim: NDArray[np.float64] | None = _ssim(*shown)
    except ImportError:
        ssim = None
        notes.append("no SSIM: torchmetrics is not installed (pip install torchmetrics)")
    return Parity(
        pictures=len(result),
        not_finite=broken,
        max_abs=float(largest.max()),
        mean_abs=float(errors.mean()),
        psnr_p1=_finite(float(np.quantile(psnr, 0.01, method="lower"))),
        psnr_median=_finite(float(np.quantile(psnr, 0.5, method="lower"))),
        ssim_min=None if ssim is None else float(ssim.min()),
        ssim_median=None if ssim is None else float(np.median(ssim)),
        worst=int(np.flatnonzero(fine)[largest.argmax()]),
        notes=notes,
    )


def side_by_side(reference: Raw, result: Raw) -> NDArray[np.uint8]:
    """Reference, result (each (3, H, W)) and their difference, `AMPLIFIED` times, around grey: (H, 3W, 3)."""
    difference = np.clip((result - reference) * AMPLIFIED, -1, 1)
    return np.concatenate(list(to_uint8(np.stack([reference, result, difference]))), axis=1)


def _psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """DB (N) of pictures uint8 (N, H, W, 3); infinite for equal ones."""
    error = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def _ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity (N) of pictures uint8 (N, H, W, 3), by torchmetrics' defaults."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, two = (torch.from_numpy(each.transpose(0, 3, 1, 2).astype(np.float64)) for each in (a, b))
    similar = structural_similarity_index_measure(one, two, reduction="none", data_range=255.0)
    assert isinstance(similar, torch.Tensor)
    return similar.double().numpy().reshape(-1)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
