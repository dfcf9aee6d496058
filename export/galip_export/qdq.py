"""Graphs whose convolutions and products read 8-bit integers: QuantizeLinear and DequantizeLinear (QDQ).

A weight w of output channel c is stored as round(w / s_c). Of the scales from the whole range down to 0.6 of
it, s_c is the one with the least squared error. An input x becomes round(x / s) + z with one s and z for the
whole tensor. Outputs stay float, and so does everything else.

`onnxruntime.quantization` computes the same integers from the same ranges, but feeds a rounded tensor to
every node that reads it, skip connections included: with all of the shipped model in int8, the worst of 24
pictures has 34.5 dB instead of 35.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["Activation", "QdqGraph", "Rounding", "activation", "quantized", "stored_weight"]

_CLIPPING = np.linspace(1.0, 0.6, 9)
"""scales of weights that are tried, as shares of the one that keeps the whole range"""


@dataclass(frozen=True)
class Activation:
    """The scale and zero point of a tensor that is quantized when the graph runs."""

    scale: npt.NDArray[np.float32]
    """a scalar"""
    zero: npt.NDArray[np.generic]
    """a scalar: uint8; int8 and 0 for what has to be symmetric"""


@dataclass(frozen=True)
class Rounding:
    """How a graph's layers are rounded, whichever of them are in int8."""

    activations: Mapping[str, Activation]
    """by the tensor's name"""
    corrections: Mapping[str, npt.NDArray[np.float32]]
    """what is added to a convolution's bias (C), by the node's name; those not named keep theirs"""


def activation(low: float, high: float, symmetric: bool) -> Activation:
    """Return the quantization of a tensor from `low` ≤ 0 to `high` ≥ 0; values beyond are clipped."""
    if symmetric:
        return Activation(np.array(max(-low, high, 1e-6) / 127, np.float32), np.array(0, np.int8))
    scale = max(high - low, 1e-6) / 255
    return Activation(np.array(scale, np.float32), np.array(round(-low / scale), np.uint8))


def stored_weight(
    weight: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return `weight` as int8 and the scale (C) of each channel of `axis`, of least squared error."""
    channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    whole = np.maximum(np.abs(channels).max(axis=1), 1e-8) / 127
    errors = []
    for share in _CLIPPING:
        wide = (whole * share)[:, None].astype(np.float32)
        rounded = np.clip(np.rint(channels / wide), -127, 127) * wide
        errors.append(np.square(rounded - channels).sum(axis=1))
    scale = (whole * _CLIPPING[np.argmin(errors, axis=0)]).astype(np.float32)
    wide = scale.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
    return np.clip(np.rint(weight / wide), -127, 127).astype(np.int8), scale


def quantized(model: ModelProto, nodes: Sequence[NodeProto], rounding: Rounding) -> ModelProto:
    """Return `model` with `nodes` in int8. `model` itself stays as it is."""
    graph = QdqGraph(model)
    for name in dict.fromkeys(node.input[0] for node in nodes):
        scale, zero = graph.parameters(name)
        graph.constant(scale, rounding.activations[name].scale)
        graph.constant(zero, rounding.activations[name].zero)
    chosen = {node.name for node in nodes}
    for node in model.graph.node:
        correction = rounding.corrections.get(node.name)
        graph.append(graph.int8(node, correction) if node.name in chosen else node)
    return graph.finish()


class QdqGraph:
    """Rebuilds a graph, node by node."""

    def __init__(self, model: ModelProto) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[NodeProto] = []
        self._dequantized: dict[str, str] = {}

    @staticmethod
    def parameters(name: str) -> tuple[str, str]:
        """Return the names of the scale and the zero point of the tensor `name`: the caller defines them."""
        return f"{name}/8bit/scale", f"{name}/8bit/zero"

    def append(self, node: NodeProto) -> None:
        """Add a node as it is."""
        self._nodes.append(node)

    def int8(self, node: NodeProto, correction: npt.NDArray[np.float32] | None = None) -> NodeProto:
        """Return a copy of `node` whose first two inputs are quantized; what computes these is added."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[0] = self._activation(node.input[0])
        copy.input[1] = self._weight(node.input[1], axis=0 if node.op_type == "Conv" else 1)
        if correction is not None:
            bias = numpy_helper.to_array(self._weights[node.input[2]]) if len(node.input) > 2 else 0
            del copy.input[2:]
            copy.input.append(self.constant(f"{node.name}/bias", (bias + correction).astype(np.float32)))
        return copy

    def add(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a new node and return the name of its output."""
        name = f"{output}/{operation}"
        self._nodes.append(helper.make_node(operation, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def input(self, name: str, type_: int, shape: Sequence[int | None]) -> str:
        """Add an input of the graph and return its name."""
        self._graph.input.append(helper.make_tensor_value_info(name, type_, shape))
        return name

    def output(self, name: str) -> str:
        """Make the float32 tensor `name` an output of the graph, too."""
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        return name

    def finish(self) -> ModelProto:
        """Return the graph, without the weights that nothing reads any more."""
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        weights = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(weights)
        return self._model

    def _activation(self, name: str) -> str:
        """Return the name of the tensor `name` after quantization and back."""
        if name not in self._dequantized:
            parameters = self.parameters(name)
            stored = self.add("QuantizeLinear", [name, *parameters], f"{name}/8bit")
            self._dequantized[name] = self.add("DequantizeLinear", [stored, *parameters], f"{stored}/float")
        return self._dequantized[name]

    def _weight(self, name: str, axis: int) -> str:
        """Return the name of the weight `name`, stored as int8 with a scale for each channel of `axis`."""
        if name not in self._dequantized:
            weight, scale = stored_weight(numpy_helper.to_array(self._weights[name]), axis)
            stored = self.constant(f"{name}/int8", weight)
            parameters = [
                self.constant(f"{stored}/scale", scale),
                self.constant(f"{stored}/zero", np.zeros(len(scale), np.int8)),
            ]
            inputs = [stored, *parameters]
            self._dequantized[name] = self.add("DequantizeLinear", inputs, f"{stored}/float", axis=axis)
        return self._dequantized[name]
