"""One graph that computes each group of layers in int8 or in float, as its inputs say.

At the released size onnxruntime takes longer to compile a graph than to run it for a few pictures. So the
graph is compiled once, with every layer in it twice, and which of the two counts, the ranges and the
corrections are inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from galip_runtime.arrays import batches
from onnx import ModelProto, NodeProto, TensorProto

from galip_export.calibration import Inputs, count, rows, session
from galip_export.qdq import Activation, QdqGraph, Rounding

__all__ = ["Trial"]


class Trial:
    """Computes pictures with any groups of convolutions and products in int8."""

    def __init__(
        self,
        graph: ModelProto,
        groups: Sequence[Sequence[NodeProto]],
        symmetric: Mapping[str, bool],
        batch: int,
    ) -> None:
        """`symmetric`: whether a tensor is int8 or uint8, by name; `batch`: pictures computed at once."""
        self._groups, self._batch, self._image = len(groups), batch, graph.graph.output[0].name
        weights = {tensor.name: tensor for tensor in graph.graph.initializer}
        self._channels = {
            node.name: weights[node.input[1]].dims[0]
            for group in groups
            for node in group
            if node.op_type == "Conv"
        }
        self._session = session(_with_switches(graph, groups, symmetric))

    def images(
        self, inputs: Inputs, int8: Collection[int], rounding: Rounding, advance: Callable[[], None]
    ) -> npt.NDArray[np.float32]:
        """Return the pictures (N, 3, H, W) with the groups `int8`, by number, in int8.

        `advance` is called after each batch.
        """
        found = self._run([self._image], inputs, int8, rounding, advance)
        return np.concatenate([images for (images,) in found])

    def mean_errors(
        self, inputs: Inputs, activations: Mapping[str, Activation], advance: Callable[[], None]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the mean error (C) of each convolution in int8 that reads what the float graph computes."""
        names = [_mean(name) for name in self._channels]
        found = list(self._run(names, inputs, (), Rounding(activations, {}), advance))
        return {
            name: np.concatenate([means[index] for means in found]).mean(axis=(0, 2, 3))
            for index, name in enumerate(self._channels)
        }

    def _run(
        self,
        outputs: list[str],
        inputs: Inputs,
        int8: Collection[int],
        rounding: Rounding,
        advance: Callable[[], None],
    ) -> Iterator[list[npt.NDArray[np.float32]]]:
        """Yield `outputs`, a batch at a time."""
        feeds: dict[str, npt.NDArray[Any]] = {
            _switch(group): np.array(group in int8, np.float32) for group in range(self._groups)
        }
        for name, given in rounding.activations.items():
            scale, zero = QdqGraph.parameters(name)
            feeds |= {scale: given.scale, zero: given.zero}
        for name, channels in self._channels.items():
            correction = rounding.corrections.get(name, np.zeros(channels, np.float32))
            feeds[_correction(name)] = correction.reshape(1, -1, 1, 1)
        for batch in batches(count(inputs), self._batch):
            yield self._session.run(outputs, {**feeds, **rows(inputs, batch)})
            advance()


def _switch(group: int) -> str:
    return f"int8/{group}"


def _correction(node: str) -> str:
    return f"{node}/correction"


def _mean(node: str) -> str:
    return f"{node}/mean_error"


def _with_switches(
    model: ModelProto, groups: Sequence[Sequence[NodeProto]], symmetric: Mapping[str, bool]
) -> ModelProto:
    """Return `model` with y + switch · (y in int8 + correction - y) for the output y of each layer."""
    graph = QdqGraph(model)
    for name, is_int8 in symmetric.items():
        scale, zero = graph.parameters(name)
        graph.input(scale, TensorProto.FLOAT, [])
        graph.input(zero, TensorProto.INT8 if is_int8 else TensorProto.UINT8, [])
    for number in range(len(groups)):
        graph.input(_switch(number), TensorProto.FLOAT, [])
    group_of = {node.name: number for number, group in enumerate(groups) for node in group}
    for node in model.graph.node:
        if node.name not in group_of:
            graph.append(node)
            continue
        y = node.output[0]
        plain, rounded = NodeProto(), graph.int8(node)
        plain.CopyFrom(node)
        plain.output[0], rounded.output[0], rounded.name = (
            f"{y}/in_float",
            f"{y}/in_int8",
            f"{node.name}/int8",
        )
        graph.append(plain)
        graph.append(rounded)
        error = graph.add("Sub", [rounded.output[0], plain.output[0]], f"{y}/error")
        if node.op_type == "Conv":
            graph.output(graph.add("GlobalAveragePool", [error], _mean(node.name)))
            correction = graph.input(_correction(node.name), TensorProto.FLOAT, [1, None, 1, 1])
            error = graph.add("Add", [error, correction], f"{y}/corrected")
        counted = graph.add("Mul", [error, _switch(group_of[node.name])], f"{y}/counted")
        graph.add("Add", [plain.output[0], counted], y)
    return graph.finish()
