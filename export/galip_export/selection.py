"""Which parts of a graph are computed in fewer bits, and which stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from galip_export.comparison import first_percentile

__all__ = ["Psnr", "select"]

Psnr = npt.NDArray[np.float64]
"""of each sample, in dB (N)"""

_NONE = -200.0


def select(
    alone: Sequence[Psnr], works: Sequence[int], psnr: Callable[[list[int]], Psnr], goal: float
) -> list[int]:
    """The parts, by number, that together keep the first percentile of PSNR at `goal` or above; maybe none.

    `alone` has the PSNR with each part alone in fewer bits, `works` what each has to compute, and `psnr`
    measures several together. Errors that have nothing to do with each other add up, so parts are left out,
    those with the most error for their work first, until the sum is good enough; and for as long as it is not
    when measured. PSNR that is no number is none at all.
    """
    alone = [np.nan_to_num(each, nan=_NONE) for each in alone]

    def loss(part: int) -> float:
        return float(10 ** (-first_percentile(alone[part]) / 10) / max(works[part], 1))

    order = sorted(range(len(alone)), key=loss, reverse=True)
    while order and first_percentile(_summed([alone[part] for part in order])) < goal:
        del order[0]
    while order and not first_percentile(psnr(order)) >= goal:
        del order[0]
    return order


def _summed(psnrs: Sequence[Psnr]) -> Psnr:
    """PSNR of errors that add up, from the PSNR of each."""
    return np.asarray(-10 * np.log10(sum(10 ** (-each / 10) for each in psnrs)))
