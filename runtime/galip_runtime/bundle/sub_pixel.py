"""Doublings and their 3x3 kernels: from the four 2x2 kernels of the phases back to the one they come from.

Behind nearest doubling two of three neighbouring pixels are equal, so that a row's taps w0, w1, w2 become
two: (w0, w1 + w2) for an even row, (w0 + w1, w2) for an odd one, and columns likewise. The four phases (row,
column) 00, 01, 10, 11 therefore have the corners of the kernel, and sums of the rest.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["kernel_of_phases", "phases_of_kernel"]

_TOLERANCE = 8 * float(np.finfo(np.float32).eps)
"""of the largest weight: what sums in float32 may be off"""

Weights = npt.NDArray[np.float32]


def phases_of_kernel(kernel: Weights) -> list[Weights]:
    """Return the kernels (Co, Ci, 2, 2) of the four phases of `kernel` (Co, Ci, 3, 3)."""

    def halves(taps: Weights, axis: int) -> tuple[Weights, Weights]:
        first, middle, last = (taps.take(index, axis) for index in range(3))
        return np.stack([first, middle + last], axis), np.stack([first + middle, last], axis)

    return [phase for rows in halves(kernel, 2) for phase in halves(rows, 3)]


def kernel_of_phases(phases: Sequence[Weights]) -> Weights:
    """Return the kernel (Co, Ci, 3, 3) of four phases (Co, Ci, 2, 2).

    Raises ValueError where they do not come from one kernel, up to float32's rounding.
    """
    p00, p01, p10, p11 = (phase.astype(np.float64) for phase in phases)
    kernel = np.empty((*p00.shape[:2], 3, 3))
    kernel[..., 0, 0], kernel[..., 0, 2] = p00[..., 0, 0], p01[..., 0, 1]
    kernel[..., 2, 0], kernel[..., 2, 2] = p10[..., 1, 0], p11[..., 1, 1]
    kernel[..., 0, 1] = p00[..., 0, 1] - kernel[..., 0, 2]
    kernel[..., 1, 0] = p00[..., 1, 0] - kernel[..., 2, 0]
    kernel[..., 1, 2] = p01[..., 1, 1] - kernel[..., 2, 2]
    kernel[..., 2, 1] = p10[..., 1, 1] - kernel[..., 2, 2]
    kernel[..., 1, 1] = p00[..., 1, 1] - kernel[..., 1, 2] - kernel[..., 2, 1] - kernel[..., 2, 2]
    rounded = kernel.astype(np.float32)
    largest = max(float(np.abs(phase).max()) for phase in phases)
    for phase, again in zip(phases, phases_of_kernel(rounded), strict=True):
        if not np.abs(phase - again).max() <= _TOLERANCE * largest:
            raise ValueError(
                "the four kernels of a doubling do not come from one 3x3 kernel; older versions of galip "
                "rounded each by itself: export the bundle again"
            )
    return rounded
