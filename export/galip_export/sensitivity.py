"""Which parts of a graph can be computed in fewer bits: measured part by part, weighed by their MACs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from galip_export.comparison import first_percentile
from galip_export.progress import Stage

__all__ = ["Psnr", "count_macs", "measure", "select"]

Psnr = npt.NDArray[np.float64]
"""of each sample, in dB (N)"""

_NONE = -200.0


def measure(parts: int, psnr: Callable[[list[int]], Psnr], stage: Stage) -> list[Psnr]:
    """Return the PSNR with each of the `parts` alone in fewer bits; `psnr` measures several, by number."""
    alone = []
    for part in range(parts):
        alone.append(psnr([part]))
        stage.advance()
    return alone


def select(
    alone: Sequence[Psnr], macs: Sequence[int], psnr: Callable[[list[int]], Psnr], goal: float
) -> list[int]:
    """Return the parts, by number, that together keep the first percentile of PSNR at `goal` or above.

    `alone` is the PSNR with each part alone in fewer bits, and `psnr` measures several together. Errors that
    have nothing to do with each other add up. So parts are left out, those with the most error for their
    MACs first, until the sum is good enough, and then for as long as the measurement is not. A PSNR that is
    not a number counts as none. The result may be empty.
    """
    alone = [np.nan_to_num(part, nan=_NONE) for part in alone]

    def cost(part: int) -> float:
        return float(10 ** (-first_percentile(alone[part]) / 10) / max(macs[part], 1))

    chosen = sorted(range(len(alone)), key=cost, reverse=True)
    while chosen and first_percentile(_sum_errors([alone[part] for part in chosen])) < goal:
        del chosen[0]
    while chosen and not first_percentile(psnr(chosen)) >= goal:
        del chosen[0]
    return chosen


def _sum_errors(psnrs: Sequence[Psnr]) -> Psnr:
    """Return the PSNR of errors that add up, from the PSNR of each."""
    return np.asarray(-10 * np.log10(sum(10 ** (-psnr / 10) for psnr in psnrs)))


def count_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Return the MACs (multiply-adds, of a batch of one) of each convolution and matrix product, by its name.

    Dynamic sizes count as 1.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(size.dim_value or 1 for size in sizes)
    macs = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            macs_per_output = np.prod(shapes[node.input[1]][1:])
        elif node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            macs_per_output = shapes[node.input[0]][0 if transposed else 1]
        elif node.op_type == "MatMul":
            macs_per_output = shapes[node.input[0]][-1]
        else:
            continue
        macs[node.name] = int(np.prod(shapes[node.output[0]]) * macs_per_output)
    return macs
