"""int8: the generator's convolutions and matrix products in 8-bit integers, as far as the picture allows.

Static quantization, written into the graph as QuantizeLinear and DequantizeLinear (QDQ): a weight w of
output channel c is stored as round(w / s_c), s_c = max|w_c| / 127; an input x becomes round(x / s) + z with
one s and z for the whole tensor, from the least and the greatest value that calibration sees. Outputs stay
float, and so does everything but convolutions and MatMuls with a constant matrix: attention, the affine
networks, the few Gemms from noise and sentence.

What costs the picture is the rounding of inputs whose range differs from sample to sample, most of all in the
first blocks. Clipping ranges (percentile, entropy, least squares) makes the worst pictures worse than taking
them whole.

`onnxruntime.quantization` computes the same scales and integers, but feeds a rounded tensor to every node
that reads it, skip connections included: with all of the shipped model in int8, the worst of 24 pictures has
34.5 dB instead of 35.0. It also takes 25 times as long, once for each group measured, and leaves the nodes
out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.errors import QualityGateFailed
from onnx import ModelProto, NodeProto, helper, numpy_helper

from galip.progress import Progress, no_progress
from galip_export.calibration import Range, Samples, held_out, output, ranges, rows
from galip_export.comparison import first_percentile
from galip_export.progress import Stage
from galip_export.sensitivity import Psnr, count_macs, measure, select

__all__ = ["Group", "group_nodes", "quantize"]

_MARGIN_DB = 16.0
"""required of calibration beyond the gate, which allows faint noise on white backgrounds. FID sees that: with
a margin of 10 the shipped model's still changed by more than the half percent that int8 may change it
"""


@dataclass(frozen=True)
class Group:
    """Convolutions or products that are in int8 together or not at all."""

    nodes: tuple[str, ...]
    psnr_db: float
    """first percentile over the held-out pictures with this group alone in int8"""
    multiply_adds: int
    """of a picture"""
    int8: bool


def quantize(
    graph: ModelProto, samples: Samples, least_db: float, progress: Progress = no_progress
) -> tuple[ModelProto, tuple[Group, ...]]:
    """Return `graph` in int8 as far as its pictures allow, and its groups. `graph` itself stays as it is.

    All that reads one tensor is one group, and all matrix products are one. Some of the samples give the
    ranges. On the others, the error of the picture is measured with each group alone in int8, and `select`
    keeps the PSNR at `least_db` and a margin. Raises QualityGateFailed where nothing can be in int8.
    """
    groups = group_nodes(graph)
    stage = Stage(progress, "calibrating int8", len(groups))
    held = held_out(samples.inputs)
    tensors = sorted({node.input[0] for group in groups for node in group})
    bounds = ranges(graph, tensors, rows(samples.inputs, ~held))
    judged = rows(samples.inputs, held)
    expected = output(graph, judged)

    def psnr(numbers: Sequence[int]) -> Psnr:
        nodes = [node for number in numbers for node in groups[number]]
        return samples.psnr(expected, output(_quantized(graph, nodes, bounds), judged))

    alone = measure(len(groups), psnr, stage)
    macs = count_macs(graph)
    macs_of_group = [sum(macs[node.name] for node in group) for group in groups]
    chosen = select(alone, macs_of_group, psnr, goal := least_db + _MARGIN_DB)
    if not chosen:
        raise QualityGateFailed(
            f"no part of the generator can be in int8: each one alone leaves less than the {goal:g} dB of "
            "PSNR that calibration requires. No bundle was written. Export it without int8"
        )
    report = tuple(
        Group(
            tuple(node.name for node in group),
            first_percentile(alone[number]),
            macs_of_group[number],
            number in chosen,
        )
        for number, group in enumerate(groups)
    )
    return _quantized(graph, [node for number in chosen for node in groups[number]], bounds), report


def group_nodes(graph: ModelProto) -> list[list[NodeProto]]:
    """Return convolutions by the tensor that they read, and all products with a constant matrix together."""
    matrices = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    groups: dict[str, list[NodeProto]] = {}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            groups.setdefault(node.input[0], []).append(node)
        elif node.op_type == "MatMul" and node.input[1] in matrices:
            groups.setdefault("", []).append(node)
    return list(groups.values())


def _quantized(model: ModelProto, nodes: Sequence[NodeProto], bounds: dict[str, Range]) -> ModelProto:
    """Return `model` with the inputs and weights of `nodes` between QuantizeLinear and DequantizeLinear."""
    result = ModelProto()
    result.CopyFrom(model)
    quantizer = _Quantizer(result.graph, bounds)
    chosen = {node.name for node in nodes}
    for node in model.graph.node:
        quantizer.add(node, node.name in chosen)
    quantizer.finish()
    return result


class _Quantizer:
    """Rebuilds a graph, node by node."""

    def __init__(self, graph: onnx.GraphProto, bounds: dict[str, Range]) -> None:
        self._graph, self._bounds = graph, bounds
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[NodeProto] = []
        self._dequantized: dict[str, str] = {}

    def add(self, node: NodeProto, int8: bool) -> None:
        """Append `node`; with `int8`, its first two inputs are quantized."""
        copy = NodeProto()
        copy.CopyFrom(node)
        if int8:
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
        weights = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(weights)

    def _activation(self, name: str, symmetric: bool) -> str:
        """Return the name of the tensor `name` after quantization and back."""
        key = f"{name}/{'int8' if symmetric else 'uint8'}"
        if key not in self._dequantized:
            low, high = self._bounds[name]
            if symmetric:
                scale, zero_point = max(-low, high, 1e-6) / 127, np.array(0, np.int8)
            else:
                scale = max(high - low, 1e-6) / 255
                zero_point = np.array(round(-low / scale), np.uint8)
            parameters = self._parameters(key, np.array(scale, np.float32), zero_point)
            quantized = self._append("QuantizeLinear", [name, *parameters], key)
            self._dequantized[key] = self._dequantize(quantized, parameters)
        return self._dequantized[key]

    def _weight(self, name: str, axis: int) -> str:
        """Return the name of the weight `name`, stored as int8 with a scale for each channel of `axis`."""
        if name not in self._dequantized:
            weight = numpy_helper.to_array(self._weights[name])
            others = tuple(index for index in range(weight.ndim) if index != axis)
            scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-8) / 127
            stored = self._constant(f"{name}/int8", np.rint(weight / scale).astype(np.int8))
            flat = scale.ravel().astype(np.float32)
            parameters = self._parameters(stored, flat, np.zeros(len(flat), np.int8))
            self._dequantized[name] = self._dequantize(stored, parameters, axis=axis)
        return self._dequantized[name]

    def _dequantize(self, name: str, parameters: list[str], **axis: int) -> str:
        return self._append("DequantizeLinear", [name, *parameters], f"{name}/float", **axis)

    def _append(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"{output}/{operation}"
        self._nodes.append(helper.make_node(operation, inputs, [output], name=name, **attributes))
        return output

    def _parameters(
        self, name: str, scale: npt.NDArray[np.float32], zero_point: npt.NDArray[np.generic]
    ) -> list[str]:
        return [self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", zero_point)]

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name
