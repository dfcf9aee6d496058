"""The check of an exported graph: one that is not as its contract says gets into no bundle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import QualityGateFailed
from onnx import NodeProto, ValueInfoProto, numpy_helper

__all__ = ["check_graph", "described", "nearest_index"]

_DTYPES: dict[int, str] = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}


def check_graph(
    proto: onnx.ModelProto,
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    opset: int,
) -> None:
    """Check the graph `name`. Raises QualityGateFailed that says what is wrong with it."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise QualityGateFailed(f"the exported {name} is not a valid ONNX graph: {error}") from error
    problems = [
        *_contract_problems(proto, inputs, outputs, opset),
        *_waste(proto.graph),
        *_leaks(proto),
        *_resize_problems(proto.graph),
    ]
    if problems:
        raise QualityGateFailed(
            f"the exported {name} is not the graph it should be (torch or onnxscript may have changed; use "
            "the versions that galip asks for):",
            *problems,
        )


def nearest_index(size: int, out: int) -> np.ndarray:
    """Return, for each of `out` pixels, the pixel of `size` that nearest upsampling takes: ⌊i·size/out⌋."""
    return np.arange(out) * size // out


def described(proto: onnx.ModelProto) -> tuple[Any, ...]:
    """Return everything in `proto` that can carry a `doc_string` and `metadata_props`."""
    graph = proto.graph
    tensors = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    return (proto, graph, *graph.node, *tensors)


def _contract_problems(
    proto: onnx.ModelProto, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], opset: int
) -> list[str]:
    actual = (_specs(proto.graph.input), _specs(proto.graph.output))
    problems = [
        f"its {side} are {specs}, not {expected}"
        for side, specs, expected in zip(("inputs", "outputs"), actual, (inputs, outputs), strict=True)
        if specs != expected
    ]
    domains = {(entry.domain, entry.version) for entry in proto.opset_import}
    if domains != {("", opset)} or proto.functions:
        problems.append(f"it uses the operator sets {sorted(domains)}, not opset {opset} alone")
    return problems


def _specs(values: Iterable[ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(value.name, _DTYPES.get(value.type.tensor_type.elem_type, "another type"), _shape(value))
        for value in values
    )


def _shape(value: ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)


def _waste(graph: onnx.GraphProto) -> list[str]:
    """List weights and nodes that nothing needs, and what could have been computed at export."""
    constants = {tensor.name for tensor in graph.initializer}
    needed = {value.name for value in graph.output}
    problems = []
    for node in reversed(graph.node):
        if not needed.intersection(node.output):
            problems.append(f"nothing uses node {node.name}")
        if constants.issuperset(node.input):
            problems.append(f"node {node.name} computes a constant")
        needed.update(node.input)
    return problems + [f"nothing uses the tensor {name}" for name in sorted(constants - needed)]


def _leaks(proto: onnx.ModelProto) -> list[str]:
    """List weights outside the file, and texts that would tell of the machine that exported it."""
    problems = [
        f"{getattr(entry, 'name', 'the model')} has metadata"
        for entry in described(proto)
        if entry.doc_string or entry.metadata_props
    ]
    return problems + [
        f"the tensor {tensor.name} is in an external file"
        for tensor in proto.graph.initializer
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT
    ]


def _resize_problems(graph: onnx.GraphProto) -> list[str]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.output, *graph.value_info)}
    problems = []
    for node in graph.node:
        if node.op_type == "Resize":
            scales = tensors.get(node.input[2]) if len(node.input) == 3 else None
            fault = _resize_fault(node, scales, shapes.get(node.input[0], ()), shapes.get(node.output[0], ()))
            if fault:
                problems.append(f"{node.name} {fault}")
    return problems


def _resize_fault(
    node: NodeProto,
    scales: onnx.TensorProto | None,
    source: tuple[int | str, ...],
    result: tuple[int | str, ...],
) -> str | None:
    """Say what is wrong with a Resize: frameworks agree on nearest only where it is asymmetric and floor."""
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    required = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    wrong = {name: attributes.get(name) for name, value in required.items() if attributes.get(name) != value}
    if wrong:
        return f"has {wrong}, not nearest, asymmetric and floor"
    if scales is None:
        return "has no constant scales"
    factors = numpy_helper.to_array(scales)
    if factors.shape != (4,) or tuple(factors[:2]) != (1, 1) or source[:2] != result[:2]:
        return f"scales {factors.tolist()}; only height and width may change"
    for size, out, factor in zip(source[2:], result[2:], factors[2:], strict=True):
        if not isinstance(size, int) or not isinstance(out, int):
            return f"goes from {source} to {result}; height and width have to be known"
        pixels = np.arange(out, dtype=np.float32)
        # a backend divides by the scale or multiplies with its inverse; both in float32
        for index in (pixels / factor, pixels * np.float32(1 / factor), pixels * np.float32(size / out)):
            if int(size * factor) != out or np.any(np.floor(index) != nearest_index(size, out)):
                return f"from {size} to {out} pixels would take other pixels than PyTorch does"
    return None
