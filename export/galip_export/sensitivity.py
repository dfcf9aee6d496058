"""Which parts of a graph can be computed in fewer bits: measured part by part, weighed by their MACs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from galip_export.comparison import first_percentile
from galip_export.progress import Stage

__all__ = ["Point", "Psnr", "choose", "count_macs", "measure", "select"]

Psnr = npt.NDArray[np.float64]
"""of each sample, in dB (N)"""

_NONE = -200.0
_GUESSES = 4
_KNEE = 1.0
"""dB for each percent of the multiply-adds: what leaving a part out has to gain, once the goal is reached"""


@dataclass(frozen=True)
class Point:
    """A set of parts in fewer bits: those with the least error for their MACs."""

    parts: int
    share: float
    """of the graph's MACs"""
    estimated_db: float
    """first percentile of PSNR, from the error of each part alone"""
    measured_db: float | None
    """the same with all of them in fewer bits; None: not measured"""


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
    chosen = _cheapest_first(alone, macs)[::-1]
    while chosen and first_percentile(_sum_errors([alone[part] for part in chosen])) < goal:
        del chosen[0]
    while chosen and not first_percentile(psnr(chosen)) >= goal:
        del chosen[0]
    return chosen


def choose(
    alone: Sequence[Psnr],
    macs: Sequence[int],
    total_macs: int,
    psnr: Callable[[Sequence[int]], float],
    goal: float,
) -> tuple[list[int], tuple[Point, ...]]:
    """Return the parts, by number, that together keep `psnr` at `goal` or above, and the curve they are from.

    `alone` is the PSNR of a few samples with each part alone in fewer bits; `psnr` measures several together,
    on samples of its own. The sets that are looked at begin with the parts of least error for their MACs. The
    largest that reaches the goal is searched for with the estimate, moved by what was measured last. From it
    on, parts are left out as long as each gains a dB for each percent of the MACs: the curve's knee. The
    result is empty where not even the first part reaches the goal.
    """
    alone = [np.nan_to_num(part, nan=_NONE) for part in alone]
    order = _cheapest_first(alone, macs)
    estimates = [
        first_percentile(_sum_errors([alone[part] for part in order[:parts]]))
        for parts in range(1, len(order) + 1)
    ]
    measured: dict[int, float] = {}

    def reaches(parts: int) -> bool:
        measured[parts] = float(np.nan_to_num(psnr(order[:parts]), nan=_NONE))
        return measured[parts] >= goal

    reached, missed, guess = 0, len(order) + 1, len(order)
    while missed - reached > 1:
        if reaches(guess):
            reached = guess
        else:
            missed = guess
        offset = measured[guess] - estimates[guess - 1]
        between = range(reached + 1, missed)
        fitting = [parts for parts in between if estimates[parts - 1] + offset >= goal]
        guess = max(fitting, default=reached + 1) if len(measured) < _GUESSES else (reached + missed) // 2
    knee = _knee(estimates, [100 * macs[part] / total_macs for part in order], reached)
    if knee < reached and reaches(knee) and measured[knee] >= measured[reached]:
        reached = knee
    shares = np.cumsum([macs[part] for part in order]) / total_macs
    curve = tuple(
        Point(parts, float(shares[parts - 1]), estimates[parts - 1], measured.get(parts))
        for parts in range(1, len(order) + 1)
    )
    return order[:reached], curve


def _knee(estimates: Sequence[float], percent: Sequence[float], parts: int) -> int:
    """Return how many of the first `parts` remain where the last ones gain enough dB for their MACs."""
    while parts > 1 and estimates[parts - 2] - estimates[parts - 1] >= _KNEE * percent[parts - 1]:
        parts -= 1
    return parts


def _cheapest_first(alone: Sequence[Psnr], macs: Sequence[int]) -> list[int]:
    """Return the parts, those with the least error for their MACs first."""

    def cost(part: int) -> float:
        return float(10 ** (-first_percentile(alone[part]) / 10) / max(macs[part], 1))

    return sorted(range(len(alone)), key=cost)


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
