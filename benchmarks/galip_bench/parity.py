"""Parity: each subject's pictures against those of eager fp32, of the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from galip_runtime.arrays import batches, to_uint8
from galip_runtime.errors import QualityGateFailed
from galip_runtime.image import save_picture
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray

from galip.metrics.psnr import psnr
from galip_bench.prompts import prompts
from galip_bench.report import Parity

if TYPE_CHECKING:
    from galip.metrics import Inception
    from galip_bench.config import BenchConfig

__all__ = ["ParityStudy", "ReferencePictures", "generate_raw", "side_by_side"]

AMPLIFICATION = 32
"""Factor by which `side_by_side` multiplies the difference."""
FEATURE_PICTURES = 8
"""Pictures whose features are compared at most. Inception takes 0.15 s each on two CPU cores."""
SSIM_PICTURES = 32
"""Pictures whose SSIM is computed at most. In float64 it takes 0.2 s each at 224 pixels; float32 errs in the
fifth digit.
"""

Raw = NDArray[np.float32]
Shown = NDArray[np.uint8]
Values = NDArray[np.float64]


class ParityStudy:
    """Compares the pictures of one subject after another with those of the first, the reference."""

    def __init__(self, config: BenchConfig, inception: Inception | None, folder: Path | None) -> None:
        """`inception`: for the feature distance. `folder`: gets each subject's worst picture."""
        self.inception, self.folder = inception, folder
        self.batch = config.batch
        count = config.pictures or sum(config.batch)  # even without parity: does it work at each size?
        self.prompts = prompts(count)
        self.seeds = range(config.seed, config.seed + count)
        self.reference: ReferencePictures | None = None

    def measure(self, name: str, model: TextToImage) -> Parity:
        """Return the parity of the subject `name`. The first subject becomes the reference.

        Raises `QualityGateFailed` if the reference's own pictures are not finite.
        """
        pictures = generate_raw(model, self.prompts, self.seeds, self.batch)
        is_reference = self.reference is None
        if self.reference is None:
            if not np.isfinite(pictures).all():
                raise QualityGateFailed(
                    f"{name} itself gives NaN or infinity; nothing can be compared with it"
                )
            self.reference = ReferencePictures(pictures, self.inception)
        parity = self.reference.parity_of(pictures)
        if self.folder is not None and parity.worst is not None and not is_reference:
            self.folder.mkdir(parents=True, exist_ok=True)
            worst = side_by_side(self.reference.pictures[parity.worst], pictures[parity.worst])
            save_picture(worst, self.folder / f"{name}.png")
        return parity


class ReferencePictures:
    """The reference's pictures, with which others are compared."""

    def __init__(self, pictures: Raw, inception: Inception | None = None) -> None:
        """`pictures`: (N, 3, H, W), finite. `inception`: for the feature distance."""
        self.pictures, self._inception = pictures, inception
        self._shown = to_uint8(pictures)
        self._features = None if inception is None else _features(self._shown[:FEATURE_PICTURES], inception)

    def parity_of(self, result: Raw) -> Parity:
        """Return the parity of `result` (N, 3, H, W), of the same prompts and seeds."""
        finite = np.asarray(np.isfinite(result).all(axis=(1, 2, 3)))
        not_finite = int((~finite).sum())
        if not finite.any():
            return Parity(
                len(result), not_finite, None, None, 0, None, None, None, None, None, None, None, None
            )
        errors = np.abs(self.pictures[finite].astype(np.float64) - result[finite])
        largest = errors.max(axis=(1, 2, 3))
        reference, shown = self._shown[finite], to_uint8(result[finite])
        decibels, notes = psnr(reference, shown, 255), []
        try:
            ssim: Values | None = _ssim(reference[:SSIM_PICTURES], shown[:SSIM_PICTURES])
        except ImportError:
            ssim = None
            notes.append("no SSIM: torchmetrics is not installed (pip install torchmetrics)")
        distances = self._feature_distances(shown, finite)
        return Parity(
            pictures=len(result),
            not_finite=not_finite,
            max_abs=float(largest.max()),
            mean_abs=float(errors.mean()),
            equal=int(np.isinf(decibels).sum()),
            psnr_min=_finite(float(decibels.min())),
            psnr_p1=_finite(_quantile(decibels, 0.01)) if len(decibels) >= 100 else None,
            psnr_median=_finite(_quantile(decibels, 0.5)),
            ssim_min=None if ssim is None else float(ssim.min()),
            ssim_median=None if ssim is None else float(np.median(ssim)),
            feature_distance_median=None if distances is None else float(np.median(distances)),
            feature_distance_max=None if distances is None else float(distances.max()),
            worst=int(np.flatnonzero(finite)[largest.argmax()]),
            notes=notes,
        )

    def _feature_distances(self, shown: Shown, finite: NDArray[np.bool_]) -> Values | None:
        """Return the distances that `Parity` describes, of the `finite` (N) pictures: uint8 (M, H, W, 3).

        None without any, and where no two of the reference's pictures differ.
        """
        if self._inception is None or self._features is None:
            return None
        compared = finite[:FEATURE_PICTURES]
        count = int(compared.sum())
        neighbours = np.roll(self._features, 1, axis=0)
        typical = np.median(np.linalg.norm(self._features - neighbours, axis=1))
        if typical == 0 or count == 0:
            return None
        if np.array_equal(shown, self._shown[finite]):
            return np.zeros(count)
        difference = self._features[compared] - _features(shown[:count], self._inception)
        return np.asarray(np.linalg.norm(difference, axis=1) / typical)


def generate_raw(
    model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], sizes: Sequence[int] = (1,)
) -> Raw:
    """Return the generator's pictures as they are, float32 (N, 3, H, W), with NaN and infinity.

    `sizes`: batch sizes. The first N / len(sizes) pictures are generated in batches of the first, and so on.
    """
    sentence = model.encode_text(list(prompts))
    noise = model.noise(seeds)
    pictures = []
    for size, rows in zip(sizes, np.array_split(np.arange(len(noise)), len(sizes)), strict=True):
        for batch in batches(len(rows), size):
            pictures.append(model._run_generator(noise[rows[batch]], sentence[rows[batch]]))
    return np.concatenate(pictures)


def side_by_side(reference: Raw, result: Raw) -> Shown:
    """Return reference, result (each (3, H, W)) and their amplified difference on grey, as one (H, 3W, 3)."""
    difference = np.clip((result - reference) * AMPLIFICATION, -1, 1)
    return np.concatenate(list(to_uint8(np.stack([reference, result, difference]))), axis=1)


def _ssim(reference: Shown, result: Shown) -> Values:
    """Return the structural similarity (N) of pictures uint8 (N, H, W, 3), by torchmetrics' defaults.

    One by one: in float64, PyTorch's convolution takes a quarter of a gigabyte for a picture of 224 pixels.
    """
    import torch

    from galip.clip import import_open_clip

    import_open_clip()  # torchmetrics imports torchvision, which fails without this if it doesn't match torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = []
    for pair in zip(reference, result, strict=True):
        a, b = (torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64)) for image in pair)
        similarity = structural_similarity_index_measure(a, b, data_range=255.0)
        assert isinstance(similarity, torch.Tensor)
        values.append(float(similarity))
    return np.array(values)


def _features(shown: Shown, inception: Inception) -> Values:
    """Return Inception's features (N, F) of pictures uint8 (N, H, W, 3)."""
    import torch

    return inception(torch.from_numpy(shown.transpose(0, 3, 1, 2).copy())).astype(np.float64)


def _quantile(decibels: Values, share: float) -> float:
    """Return one of the values: between a finite and an infinite one there is nothing to interpolate."""
    return float(np.quantile(decibels, share, method="lower"))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
