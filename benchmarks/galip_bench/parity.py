"""Whether the picture is still the same: each subject's against eager fp32's, of equal prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from galip_runtime.arrays import batches, to_uint8
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray

if TYPE_CHECKING:
    from galip.metrics import Inception

__all__ = ["Original", "Parity", "draw_raw", "side_by_side"]

AMPLIFIED = 32
"""How much larger the difference is shown than it is."""

FEATURES = 8
"""Pictures that Inception sees at most: 0.15 s each on two CPU cores."""
SIMILAR = 32
"""Pictures whose SSIM is computed at most: 0.2 s each at 224 pixels, as float32 errs in the fifth digit."""

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
    equal: int
    """Pictures that are the same in 8 bits: their PSNR is infinite, which is written as None."""
    psnr_min: float | None
    """dB"""
    psnr_p1: float | None
    """First percentile; of fewer than a hundred pictures None."""
    psnr_median: float | None
    ssim_min: float | None
    """Of the first `SIMILAR` pictures."""
    ssim_median: float | None
    feature_distance_median: float | None
    """Between Inception's features (L2), of `FEATURES` pictures at most, as a share of the median one between
    the reference's pictures of neighbouring prompts: 0 is the same, 1 another picture.
    """
    feature_distance_max: float | None
    worst: int | None
    """Number of the picture with the largest absolute error."""
    notes: list[str] = field(default_factory=list)


def draw_raw(
    drawer: TextToImage, prompts: Sequence[str], seeds: Sequence[int], sizes: Sequence[int] = (1,)
) -> Raw:
    """Pictures as the generator gives them, float32 (N, 3, H, W), NaN and infinity left in.

    `sizes`: how many are made at once, the first of N / len(sizes) pictures by the first size, and so on.
    """
    sentence = drawer.encode_text(list(prompts))
    noise = drawer.noise(seeds)
    drawn = []
    for size, rows in zip(sizes, np.array_split(np.arange(len(noise)), len(sizes)), strict=True):
        for part in batches(len(rows), size):
            drawn.append(drawer._run_generator(noise[rows[part]], sentence[rows[part]]))
    return np.concatenate(drawn)


class Original:
    """The reference's pictures, with which others are compared."""

    def __init__(self, pictures: Raw, inception: Inception | None = None) -> None:
        """`pictures`: (N, 3, H, W), finite; `inception`: for the feature distance."""
        self.pictures, self._inception = pictures, inception
        self._shown = to_uint8(pictures)
        self._features = None if inception is None else _features(self._shown[:FEATURES], inception)

    def parity_of(self, result: Raw) -> Parity:
        """`result`: (N, 3, H, W), of the same prompts and seeds."""
        fine = np.asarray(np.isfinite(result).all(axis=(1, 2, 3)))
        broken = int((~fine).sum())
        if not fine.any():
            return Parity(len(result), broken, None, None, 0, None, None, None, None, None, None, None, None)
        errors = np.abs(self.pictures[fine].astype(np.float64) - result[fine])
        largest = errors.max(axis=(1, 2, 3))
        ours, theirs = self._shown[fine], to_uint8(result[fine])
        psnr, notes = _psnr(ours, theirs), []
        try:
            ssim: NDArray[np.float64] | None = _ssim(ours[:SIMILAR], theirs[:SIMILAR])
        except ImportError:
            ssim = None
            notes.append("no SSIM: torchmetrics is not installed (pip install torchmetrics)")
        far = self._feature_distances(theirs, fine)
        return Parity(
            pictures=len(result),
            not_finite=broken,
            max_abs=float(largest.max()),
            mean_abs=float(errors.mean()),
            equal=int(np.isinf(psnr).sum()),
            psnr_min=_finite(float(psnr.min())),
            psnr_p1=_finite(float(np.quantile(psnr, 0.01, method="lower"))) if len(psnr) >= 100 else None,
            psnr_median=_finite(float(np.quantile(psnr, 0.5, method="lower"))),
            ssim_min=None if ssim is None else float(ssim.min()),
            ssim_median=None if ssim is None else float(np.median(ssim)),
            feature_distance_median=None if far is None else float(np.median(far)),
            feature_distance_max=None if far is None else float(far.max()),
            worst=int(np.flatnonzero(fine)[largest.argmax()]),
            notes=notes,
        )

    def _feature_distances(
        self, shown: NDArray[np.uint8], fine: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """As `Parity` says, of pictures uint8 (M, H, W, 3), those of `fine` (N); None where no two of the
        reference's differ, and without any.
        """
        if self._inception is None or self._features is None:
            return None
        first = fine[:FEATURES]
        count = int(first.sum())
        neighbours = np.roll(self._features, 1, axis=0)
        apart = np.median(np.linalg.norm(self._features - neighbours, axis=1))
        if apart == 0 or count == 0:
            return None
        if np.array_equal(shown, self._shown[fine]):
            return np.zeros(count)
        difference = self._features[first] - _features(shown[:count], self._inception)
        return np.asarray(np.linalg.norm(difference, axis=1) / apart)


def side_by_side(reference: Raw, result: Raw) -> NDArray[np.uint8]:
    """Reference, result (each (3, H, W)) and their difference, `AMPLIFIED` times, around grey: (H, 3W, 3)."""
    difference = np.clip((result - reference) * AMPLIFIED, -1, 1)
    return np.concatenate(list(to_uint8(np.stack([reference, result, difference]))), axis=1)


def _psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """dB (N) of pictures uint8 (N, H, W, 3); infinite for equal ones."""
    error = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def _ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity (N) of pictures uint8 (N, H, W, 3), by torchmetrics' defaults.

    One by one: in float64 PyTorch's convolution takes a quarter of a gigabyte for a picture of 224 pixels.
    """
    import torch

    from galip.clip import import_open_clip

    import_open_clip()  # torchmetrics imports torchvision, which this makes possible where it doesn't match
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = []
    for pair in zip(a, b, strict=True):
        one, two = (torch.from_numpy(each.transpose(2, 0, 1)[None].astype(np.float64)) for each in pair)
        similar = structural_similarity_index_measure(one, two, data_range=255.0)
        assert isinstance(similar, torch.Tensor)
        found.append(float(similar))
    return np.array(found)


def _features(shown: NDArray[np.uint8], inception: Inception) -> NDArray[np.float64]:
    """Inception's features (N, F) of pictures uint8 (N, H, W, 3)."""
    import torch

    return inception(torch.from_numpy(shown.transpose(0, 3, 1, 2).copy())).astype(np.float64)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
