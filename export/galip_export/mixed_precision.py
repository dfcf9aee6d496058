"""Half precision: graphs computed in fp16 except what measurement keeps in fp32.

The precision is in the graph, as TensorRT asks for from 11 on: inputs and outputs stay float32, every node
has its tensors in one of the two types, and a Cast stands where they meet.

What stays in fp32 is found part by part. A part is all nodes of one kind in one section of the model: the
convolutions of a block, the norms of the image tower. A part stays where a number in it comes within a
quarter of fp16's range. Each of the others is rounded to fp16 alone (`emulation`), and those that cost the
most PSNR for their MACs stay as well.

`onnxruntime.transformers.float16` writes the same fp16 where no node stays. Where some do, it rounds the
inputs for these too (worst picture 69.5 dB instead of 70.9 with the shipped model's norms, softmaxes and
conditioning kept) and puts 137 Casts where 29 do; its nodes are out of order, and `CONDITION` is no longer
float32, where the runtime cuts the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.bundle.manifest import CONDITION
from galip_runtime.errors import QualityGateFailed
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from galip.progress import Progress, no_progress
from galip_export.calibration import Samples, held_out, output, ranges, rows
from galip_export.comparison import first_percentile
from galip_export.emulation import emulated
from galip_export.fp16_storage import LARGEST
from galip_export.progress import Stage
from galip_export.sensitivity import Psnr, count_macs, measure, select

__all__ = [
    "Part",
    "convert_mixed",
    "float_tensors",
    "group_parts",
    "to_fp16",
]

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_ALWAYS_FLOAT = {("ArgMax", 0), ("Resize", 1), ("Resize", 2)}
"""inputs, by operator and position, that are float32 in any case: token ids, a region and scales"""
_MARGIN_DB = 5.0
_LARGEST_SHARE = 0.25
_KINDS = {
    "Conv": "convolutions",
    "MatMul": "products",
    "Gemm": "products",
    "LayerNormalization": "norms",
    "Softmax": "softmax",
}


@dataclass(frozen=True)
class Part:
    """Nodes that are in fp16 together or not at all."""

    name: str
    nodes: int
    share_of_largest: float
    """the largest magnitude that enters or leaves them, as a share of fp16's 65504; without the infinity that
    masks are made of
    """
    psnr_db: float | None
    """first percentile over the held-out samples with this part alone in fp16; None: not a number"""
    fp16: bool


def convert_mixed(
    graph: ModelProto, samples: Samples, least_db: float, progress: Progress = no_progress
) -> tuple[ModelProto, tuple[Part, ...]]:
    """Return `graph` in fp16 as far as its output allows, and its parts. `graph` itself stays as it is.

    The output has to keep a PSNR of `least_db` and a margin. Raises QualityGateFailed where nothing can be in
    fp16.
    """
    parts = group_parts(graph)
    names = list(parts)
    stage = Stage(progress, f"finding what of the {graph.graph.name} stays in fp32", len(parts))
    shares = _shares_of_largest(graph, parts, samples)
    held = rows(samples.inputs, held_out(samples.inputs))
    expected = output(graph, held)

    def nodes_outside(numbers: Collection[int]) -> set[str]:
        inside = {node.name for number in numbers for node in parts[names[number]]}
        return {node.name for node in graph.graph.node} - inside

    def psnr(numbers: Sequence[int]) -> Psnr:
        with np.errstate(over="ignore", invalid="ignore"):
            return samples.psnr(expected, output(emulated(to_fp16(graph, nodes_outside(numbers))), held))

    alone = measure(len(parts), psnr, stage)
    macs = count_macs(graph)
    macs_of_part = [sum(macs.get(node.name, 0) for node in parts[name]) for name in names]
    within_range = [number for number, name in enumerate(names) if shares[name] <= _LARGEST_SHARE]
    goal = least_db + _MARGIN_DB
    selected = select(
        [alone[number] for number in within_range],
        [macs_of_part[number] for number in within_range],
        lambda indices: psnr([within_range[index] for index in indices]),
        goal,
    )
    chosen = {within_range[index] for index in selected}
    if not chosen:
        raise QualityGateFailed(
            f"no part of the {graph.graph.name} can be in fp16: each one alone leaves less than the {goal:g} "
            "dB of PSNR that are required, or comes near fp16's largest number. Export it without fp16"
        )
    report = []
    for number, name in enumerate(names):
        percentile = first_percentile(alone[number])
        finite = percentile if np.isfinite(percentile) else None
        report.append(Part(name, len(parts[name]), shares[name], finite, number in chosen))
    return to_fp16(graph, nodes_outside(chosen)), tuple(report)


def group_parts(graph: ModelProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that compute with float32, by section and kind, such as "blocks.3 convolutions"."""
    floats = float_tensors(graph)
    parts: dict[str, list[NodeProto]] = {}
    for node in graph.graph.node:
        if node.op_type != "Cast" and any(name in floats for name in (*node.input, *node.output)):
            kind = _KINDS.get(node.op_type, "the rest")
            parts.setdefault(f"{_section(node.name)} {kind}".lstrip(), []).append(node)
    return parts


def _section(node: str) -> str:
    """Return `blocks.3` for a node named `blocks.3.doubling/Concat_7`, `vit` for `vit.blocks.2.out/…`."""
    modules = node.rpartition("/")[0].split(".")
    return ".".join(modules[:2]) if modules[0] == "blocks" else modules[0]


def _shares_of_largest(
    graph: ModelProto, parts: dict[str, list[NodeProto]], samples: Samples
) -> dict[str, float]:
    """Return `Part.share_of_largest` of each part."""
    activations = float_tensors(graph) - {tensor.name for tensor in graph.graph.initializer}
    tensors = {
        part: {name for node in nodes for name in (*node.input, *node.output) if name in activations}
        for part, nodes in parts.items()
    }
    bounds = ranges(graph, sorted(set().union(*tensors.values())), samples.inputs)
    return {
        part: max(abs(value) for name in names for value in bounds[name] if np.isfinite(value)) / LARGEST
        for part, names in tensors.items()
    }


def to_fp16(model: ModelProto, fp32_nodes: Collection[str] = ()) -> ModelProto:
    """Return `model`, all in float32, with every node in fp16 but those named in `fp32_nodes`.

    The graph's inputs, outputs and the tensor `CONDITION` stay float32. So do nodes with a weight that fp16
    cannot hold, and Casts. `model` itself stays as it is.
    """
    result = ModelProto()
    result.CopyFrom(model)
    conversion = _Fp16Conversion(result.graph, float_tensors(model))
    for node in model.graph.node:
        conversion.add(node, node.name not in fp32_nodes)
    conversion.finish()
    return result


def float_tensors(model: ModelProto) -> set[str]:
    """Return the names of all float32 tensors: inputs, weights and what is computed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
    return names | {tensor.name for tensor in model.graph.initializer if tensor.data_type == _FLOAT}


class _Fp16Conversion:
    """Rebuilds a graph, node by node."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        self._graph, self._floats = graph, floats
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._fixed = {value.name for value in graph.output} | {CONDITION}
        self._types = dict.fromkeys(floats, _FLOAT)
        self._nodes: list[NodeProto] = []
        self._converted: dict[tuple[str, int], str] = {}
        self._fp16_weights: list[TensorProto] = []

    def add(self, node: NodeProto, half: bool) -> None:
        """Append `node`; with `half`, in fp16 where it can be."""
        weights = [self._weights[name] for name in node.input if name in self._weights]
        half = half and node.op_type != "Cast" and all(map(_fits, weights))
        copy = NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in self._floats:
                as_half = half and (node.op_type, position) not in _ALWAYS_FLOAT
                copy.input[position] = self._as_type(name, _HALF if as_half else _FLOAT)
        self._nodes.append(copy)
        if not half:
            return
        for position, name in enumerate(node.output):
            if name in self._fixed:  # float32 under its own name, which other nodes read too
                copy.output[position] = f"{name}/computed"
                self._cast(copy.output[position], name, _FLOAT)
            elif name in self._floats:
                self._types[name] = _HALF

    def finish(self) -> None:
        """Put nodes, weights and types into the graph."""
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        weights = [
            tensor for tensor in (*self._graph.initializer, *self._fp16_weights) if tensor.name in used
        ]
        del self._graph.initializer[:]
        self._graph.initializer.extend(weights)
        for value in self._graph.value_info:
            if self._types.get(value.name) == _HALF:
                value.type.tensor_type.elem_type = _HALF

    def _as_type(self, name: str, dtype: int) -> str:
        """Return the name of the tensor `name` in the type `dtype`, which is converted once for all nodes."""
        if self._types[name] == dtype:
            return name
        if (name, dtype) not in self._converted:
            result = f"{name}/{'half' if dtype == _HALF else 'float'}"
            if name in self._weights:
                value = numpy_helper.to_array(self._weights[name])
                self._fp16_weights.append(numpy_helper.from_array(value.astype(np.float16), result))
            else:
                self._cast(name, result, dtype)
            self._converted[name, dtype] = result
        return self._converted[name, dtype]

    def _cast(self, name: str, result: str, dtype: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [result], name=f"{result}/Cast", to=dtype))


def _fits(tensor: TensorProto) -> bool:
    """Return whether fp16 can hold `tensor`. It can hold infinity, which masks are made of."""
    if tensor.data_type != _FLOAT:
        return True
    magnitude: npt.NDArray[np.float32] = np.abs(numpy_helper.to_array(tensor))
    return not ((magnitude > LARGEST) & np.isfinite(magnitude)).any()
