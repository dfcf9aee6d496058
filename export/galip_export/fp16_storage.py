"""Weights stored as fp16 in a graph that computes in fp32: half the file, and no slower once it is loaded.

Backends compute what turns the stored numbers into weights once, as they load the graph.

The four 2×2 kernels of a sub-pixel convolution (`rewrites.SubPixelConv`) come from one 3×3 kernel, and that
is what is stored: 9 numbers instead of 16, each rounded once, so that the four fit together exactly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from galip_runtime.bundle.sub_pixel import kernel_of_phases
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["LARGEST", "store_weights_as_fp16"]

LARGEST = float(np.finfo(np.float16).max)
"""65504: beyond it, fp16 has only infinity"""

_LEAST_STORED = 1024
"""numbers from which on storing a tensor in fp16 is worth a node"""
_PHASE = re.compile(r"(?P<module>.+)\.phases\.[0-3]\.weight")

_Weight = npt.NDArray[np.float32]


def store_weights_as_fp16(model: ModelProto) -> ModelProto:
    """Return `model` with its large float32 tensors in fp16, each behind a Cast, and computed in fp32.

    The phases of a sub-pixel convolution become sums of the taps of one stored kernel. A tensor with numbers
    beyond 65504 stays as it is, and so does `model`.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights: dict[str, _Weight] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    kernels, sums = _joined(weights)
    summed = {name for node in sums for name in node.output}
    stored = {name: weight for name, weight in weights.items() if name not in summed and _is_stored(weight)}
    stored |= kernels
    initializers = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in summed}
    for name, weight in stored.items():
        initializers[name] = numpy_helper.from_array(weight.astype(np.float16), f"{name}.fp16")
    del graph.initializer[:]
    graph.initializer.extend(initializers.values())
    casts = [
        helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
        for name in stored
    ]
    nodes = [*casts, *sums, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _joined(weights: Mapping[str, _Weight]) -> tuple[dict[str, _Weight], list[NodeProto]]:
    """Return the kernels of sub-pixel convolutions that are stored, and nodes that compute their phases."""
    kernels: dict[str, _Weight] = {}
    nodes: list[NodeProto] = []
    for module, phases in _sub_pixel_convolutions(weights):
        kernel = kernel_of_phases([weights[phase] for phase in phases])
        if _is_stored(kernel):
            kernels[f"{module}.weight"] = kernel
            nodes += _phases(f"{module}.weight", phases)
    return kernels, nodes


def _is_stored(weight: _Weight) -> bool:
    return bool(weight.size >= _LEAST_STORED and np.abs(weight).max() <= LARGEST)


def _sub_pixel_convolutions(names: Collection[str]) -> list[tuple[str, list[str]]]:
    """Return each sub-pixel convolution whose phases are all among `names`: its module, and their names."""
    modules = dict.fromkeys(match["module"] for match in map(_PHASE.fullmatch, names) if match)
    phases = {module: [f"{module}.phases.{number}.weight" for number in range(4)] for module in modules}
    return [(module, found) for module, found in phases.items() if set(found) <= set(names)]


def _phases(kernel: str, names: Sequence[str]) -> Iterator[NodeProto]:
    """Yield nodes that compute the phases `names` from `kernel`, as `sub_pixel.phases_of_kernel` does."""
    rows = [f"{kernel}/even", f"{kernel}/odd"]
    yield from _halves(kernel, rows, axis=2)
    yield from _halves(rows[0], names[:2], axis=3)
    yield from _halves(rows[1], names[2:], axis=3)


def _halves(taps: str, halves: Sequence[str], axis: int) -> Iterator[NodeProto]:
    """Yield nodes that compute (w₀, w₁ + w₂) and (w₀ + w₁, w₂) from three `taps` along `axis`."""
    first, middle, last = single = [f"{taps}/{number}" for number in range(3)]
    before, after = f"{taps}/01", f"{taps}/12"
    yield helper.make_node("Split", [taps], single, name=f"{taps}/Split", axis=axis, num_outputs=3)
    yield helper.make_node("Add", [first, middle], [before], name=f"{before}/Add")
    yield helper.make_node("Add", [middle, last], [after], name=f"{after}/Add")
    yield helper.make_node("Concat", [first, after], [halves[0]], name=f"{halves[0]}/Concat", axis=axis)
    yield helper.make_node("Concat", [before, last], [halves[1]], name=f"{halves[1]}/Concat", axis=axis)
