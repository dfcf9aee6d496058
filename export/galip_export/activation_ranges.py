"""The ranges of the tensors that int8 rounds: the whole range, or the one with the least squared error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.arrays import batches

from galip_export.calibration import Inputs, Range, count, rows, session

__all__ = ["TensorRanges", "least_squares_range", "tensor_ranges"]

_VALUES = 20_000
"""of a tensor and a picture, drawn at random"""
_SHARES = np.geomspace(0.1, 1.0, 24)
"""of the largest magnitude: where ranges are tried"""


@dataclass(frozen=True)
class TensorRanges:
    """The ranges of one tensor over the calibration's pictures, each from at most 0 to at least 0."""

    whole: Range
    """nothing is clipped"""
    least_squares: Range
    """clipped where the finer steps gain more than the clipping loses"""


def tensor_ranges(
    graph: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs, advance: Callable[[], None]
) -> dict[str, TensorRanges]:
    """Return the ranges of `tensors`, which are float32, by name. `advance` is called after each picture."""
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    del extended.graph.output[:]
    for name in tensors:
        extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    opened = session(extended)
    random = np.random.default_rng(0)
    bounds: list[list[Range]] = []
    values: list[list[npt.NDArray[np.float32]]] = []
    for picture in batches(count(inputs), 1):  # one at a time: all of these tensors are kept meanwhile
        found = opened.run(None, rows(inputs, picture))
        bounds.append([(float(tensor.min()), float(tensor.max())) for tensor in found])
        values.append([tensor.ravel()[random.integers(tensor.size, size=_VALUES)] for tensor in found])
        advance()
    ranges = {}
    for index, name in enumerate(tensors):
        low = min(0.0, *(row[index][0] for row in bounds))
        high = max(0.0, *(row[index][1] for row in bounds))
        drawn = np.concatenate([row[index] for row in values])
        ranges[name] = TensorRanges((low, high), least_squares_range(drawn, (low, high)))
    return ranges


def least_squares_range(values: npt.NDArray[np.float32], whole: Range) -> Range:
    """Return the part of the range `whole` with the least squared error of `values` in 255 steps.

    Rounding to steps of s costs s² / 12 on average; what lies outside is clipped.
    """
    low, high = whole
    largest = max(-low, high)
    best, least = whole, np.inf
    for share in _SHARES[::-1]:
        tried = max(low, -share * largest), min(high, share * largest)
        step = (tried[1] - tried[0]) / 255
        error = step**2 / 12 + float(np.square(values - values.clip(*tried), dtype=np.float64).mean())
        if error < least:
            best, least = tried, error
    return best
