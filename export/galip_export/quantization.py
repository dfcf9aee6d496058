"""int8: the generator's convolutions and matrix products of 8-bit integers, as far as the picture bears it.

Static quantization, written into the graph as QuantizeLinear and DequantizeLinear (QDQ): a weight w of
output channel c is stored as round(w / s_c), s_c = max|w_c| / 127; an input x becomes round(x / s) + z with
one s and z for the whole tensor, from the least and the greatest value that calibration sees. Outputs stay
float, and so does all that is no convolution or MatMul with a constant matrix: attention, the affine
networks, the few Gemms from noise and sentence.

What costs the picture is the inputs' rounding where their range differs from sample to sample, in the first
growing blocks above all. Clipping ranges (percentile, entropy, least squares) is worse in the worst pictures
than taking them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.errors import QualityGateFailed
from onnx import ModelProto, NodeProto, helper, numpy_helper

from galip_export.calibration import Inputs, Range, held_out, output, ranges, rows
from galip_export.comparison import first_percentile, picture_psnr
from galip_export.selection import Psnr, select
from galip_export.work import multiply_adds

__all__ = ["Group", "quantize"]

Progress = Callable[[int, int], object]

_MARGIN_DB = 16.0
"""asked of calibration beyond the gate, which allows faint noise on white backgrounds. FID sees that: with a
margin of 10 the shipped model's still changed by more than the half percent that int8 may
"""


@dataclass(frozen=True)
class Group:
    """Convolutions or products that are in int8 together or not at all."""

    nodes: tuple[str, ...]
    psnr_db: float
    """of the held-out pictures, the first percentile, with this group alone in int8"""
    multiply_adds: int
    """of a picture"""
    int8: bool


def quantize(
    generator: ModelProto, samples: Inputs, least_db: float, progress: Progress = lambda *_: None
) -> tuple[ModelProto, tuple[Group, ...]]:
    """`generator` with what the picture bears in int8, and what that is. `generator` stays as it is.

    All that reads one tensor is one group, and all matrix products are one. Some of the samples give the
    ranges; of the others, the error of the picture is measured with each group alone in int8, and `select`
    keeps the PSNR at `least_db` and a margin.

    `progress` is called with (groups measured, groups).

    Raises QualityGateFailed where nothing can be in int8.
    """
    judged = held_out(samples)
    groups = _groups(generator)
    tensors = sorted({node.input[0] for group in groups for node in group})
    progress(0, len(groups))
    seen = ranges(generator, tensors, rows(samples, ~judged))
    expected = output(generator, rows(samples, judged))

    def psnr(chosen: Sequence[int]) -> Psnr:
        nodes = [node for index in chosen for node in groups[index]]
        return picture_psnr(expected, output(_rounded(generator, nodes, seen), rows(samples, judged)))

    alone = []
    for index in range(len(groups)):
        alone.append(psnr([index]))
        progress(index + 1, len(groups))
    work = multiply_adds(generator)
    works = [sum(work[node.name] for node in group) for group in groups]
    order = select(alone, works, psnr, goal := least_db + _MARGIN_DB)
    if not order:
        raise QualityGateFailed(
            f"no part of the generator can be in int8: each alone leaves less than the {goal:g} dB of PSNR "
            "that calibration asks for. No bundle was written. Export it without int8"
        )
    report = tuple(
        Group(
            tuple(node.name for node in group), first_percentile(alone[index]), works[index], index in order
        )
        for index, group in enumerate(groups)
    )
    return _rounded(generator, [node for index in order for node in groups[index]], seen), report


def _groups(generator: ModelProto) -> list[list[NodeProto]]:
    """Convolutions that read the same tensor, and all products with a constant matrix."""
    matrices = {tensor.name for tensor in generator.graph.initializer if len(tensor.dims) == 2}
    groups: dict[str, list[NodeProto]] = {}
    for node in generator.graph.node:
        if node.op_type == "Conv":
            groups.setdefault(node.input[0], []).append(node)
        elif node.op_type == "MatMul" and node.input[1] in matrices:
            groups.setdefault("", []).append(node)
    return list(groups.values())


def _rounded(model: ModelProto, nodes: Sequence[NodeProto], ranges: dict[str, Range]) -> ModelProto:
    """`model` with the inputs and weights of `nodes` between QuantizeLinear and DequantizeLinear."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = _Rounding(result.graph, ranges)
    chosen = {node.name for node in nodes}
    for node in model.graph.node:
        graph.add(node, node.name in chosen)
    graph.finish()
    return result


class _Rounding:
    """Rebuilds a graph, node by node."""

    def __init__(self, graph: onnx.GraphProto, ranges: dict[str, Range]) -> None:
        self._graph, self._ranges = graph, ranges
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[NodeProto] = []
        self._done: dict[str, str] = {}

    def add(self, node: NodeProto, rounded: bool) -> None:
        """Append `node`, its first two inputs rounded if it is to be."""
        copy = NodeProto()
        copy.CopyFrom(node)
        if rounded:
            conv = node.op_type == "Conv"
            # OpenVINO 2026.4 refuses asymmetric inputs of products; theirs are nearly symmetric anyway
            copy.input[0] = self._activation(node.input[0], symmetric=not conv)
            copy.input[1] = self._weight(node.input[1], axis=0 if conv else 1)
        self._nodes.append(copy)

    def finish(self) -> None:
        """Put the nodes into the graph, and drop the weights that nothing reads any more."""
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _activation(self, name: str, symmetric: bool) -> str:
        key = f"{name}/{'int8' if symmetric else 'uint8'}"
        if key not in self._done:
            low, high = self._ranges[name]
            if symmetric:
                scale, zero = max(-low, high, 1e-6) / 127, np.array(0, np.int8)
            else:
                scale = max(high - low, 1e-6) / 255
                zero = np.array(round(-low / scale), np.uint8)
            both = self._constants(key, np.array(scale, np.float32), zero)
            self._done[key] = self._dequantized(self._append("QuantizeLinear", [name, *both], key), both)
        return self._done[key]

    def _weight(self, name: str, axis: int) -> str:
        if name not in self._done:
            value = numpy_helper.to_array(self._weights[name])
            others = tuple(index for index in range(value.ndim) if index != axis)
            scale = np.maximum(np.abs(value).max(axis=others, keepdims=True), 1e-8) / 127
            stored = self._constant(f"{name}/int8", np.rint(value / scale).astype(np.int8))
            flat = scale.ravel().astype(np.float32)
            both = self._constants(stored, flat, np.zeros(len(flat), np.int8))
            self._done[name] = self._dequantized(stored, both, axis=axis)
        return self._done[name]

    def _dequantized(self, name: str, scale_and_zero: list[str], **axis: int) -> str:
        return self._append("DequantizeLinear", [name, *scale_and_zero], f"{name}/float", **axis)

    def _append(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"{output}/{operation}"
        self._nodes.append(helper.make_node(operation, inputs, [output], name=name, **attributes))
        return output

    def _constants(
        self, name: str, scale: npt.NDArray[np.float32], zero: npt.NDArray[np.generic]
    ) -> list[str]:
        return [self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", zero)]

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name
