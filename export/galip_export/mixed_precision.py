"""fp16: a graph computed in half precision, but for the nodes that must stay in fp32.

The precision is in the graph, as TensorRT asks for from 11 on: inputs and outputs stay float32, every node
has its tensors in one of the two types, and a Cast stands where they meet.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.bundle.manifest import CONDITION
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["LARGEST", "float_tensors", "in_half"]

LARGEST = float(np.finfo(np.float16).max)
"""65504: beyond, fp16 has infinity alone"""

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_ALWAYS_FLOAT = {("ArgMax", 0), ("Resize", 1), ("Resize", 2)}
"""inputs, by operator and place, that are float32 whatever is computed: token ids, a region and scales"""


def in_half(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """`model`, all in float32, with every node in fp16 but those named in `kept`; `model` stays as it is.

    What the graph takes and gives, and the tensor `CONDITION`, stays float32. So do nodes with a weight that
    fp16 does not hold, and Casts.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Halving(result.graph, float_tensors(model))
    for node in model.graph.node:
        graph.add(node, node.name not in kept)
    graph.finish()
    return result


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors: inputs, weights, and what is computed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
    return names | {tensor.name for tensor in model.graph.initializer if tensor.data_type == _FLOAT}


class _Halving:
    """Rebuilds a graph, node by node."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        self._graph, self._floats = graph, floats
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._given = {value.name for value in graph.output} | {CONDITION}
        self._types = dict.fromkeys(floats, _FLOAT)
        self._nodes: list[NodeProto] = []
        self._made: dict[tuple[str, int], str] = {}
        self._halved: list[TensorProto] = []

    def add(self, node: NodeProto, half: bool) -> None:
        """Append `node`, in fp16 if it is to be and can."""
        weights = [self._weights[name] for name in node.input if name in self._weights]
        half = half and node.op_type != "Cast" and all(map(_fits, weights))
        copy = NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self._floats:
                as_half = half and (node.op_type, place) not in _ALWAYS_FLOAT
                copy.input[place] = self._as(name, _HALF if as_half else _FLOAT)
        self._nodes.append(copy)
        if not half:
            return
        for place, name in enumerate(node.output):
            if name in self._given:  # float32 under its own name, which is also what others read
                copy.output[place] = f"{name}/computed"
                self._cast(copy.output[place], name, _FLOAT)
            elif name in self._floats:
                self._types[name] = _HALF

    def finish(self) -> None:
        """Put nodes, weights and types into the graph."""
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in (*self._graph.initializer, *self._halved) if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        for value in self._graph.value_info:
            if self._types.get(value.name) == _HALF:
                value.type.tensor_type.elem_type = _HALF

    def _as(self, name: str, wanted: int) -> str:
        """The tensor `name` in the type `wanted`, by whatever name that has."""
        if self._types[name] == wanted:
            return name
        if (name, wanted) not in self._made:
            result = f"{name}/{'half' if wanted == _HALF else 'float'}"
            if name in self._weights:
                value = numpy_helper.to_array(self._weights[name])
                self._halved.append(numpy_helper.from_array(value.astype(np.float16), result))
            else:
                self._cast(name, result, wanted)
            self._made[name, wanted] = result
        return self._made[name, wanted]

    def _cast(self, name: str, result: str, wanted: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [result], name=f"{result}/Cast", to=wanted))


def _fits(tensor: TensorProto) -> bool:
    """Whether fp16 holds it; infinity, which masks are made of, it does."""
    if tensor.data_type != _FLOAT:
        return True
    value: npt.NDArray[np.float32] = np.abs(numpy_helper.to_array(tensor))
    return not ((value > LARGEST) & np.isfinite(value)).any()
