"""The weights of generation blocks as kernels take them: 3x3 and 1x1, in float32."""

import math
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galip_runtime.bundle.generation_blocks import Convolution
from galip_runtime.bundle.onnx_arrays import read_floats
from galip_runtime.bundle.onnx_reader import OnnxGraph
from galip_runtime.bundle.sub_pixel import kernel_of_phases

__all__ = ["read_convolution"]

Weights = npt.NDArray[np.float32]


def read_convolution(
    path: str | os.PathLike[str], graph: OnnxGraph, convolution: Convolution
) -> tuple[Weights, Weights]:
    """Read the kernel (Co, Ci, size, size) and the bias (Co) of a convolution of `graph` in the file `path`.

    The phases of a doubling become the 3x3 kernel that they come from. Raises ValueError where they come from
    none, and OSError where the file cannot be read.
    """
    bias = read_floats(path, graph, graph.source(convolution.bias))
    sources = [graph.source(weight) for weight in convolution.weights]
    if len(sources) == 1:
        return read_floats(path, graph, sources[0]), bias
    if all(source in graph.constants for source in sources):
        return kernel_of_phases([read_floats(path, graph, source) for source in sources]), bias
    return read_floats(path, graph, _kernel_behind(graph, sources, len(bias))), bias


def _kernel_behind(graph: OnnxGraph, phases: Sequence[str], channels: int) -> str:
    """Return the one stored 3x3 kernel with so many channels that the graph computes `phases` from."""
    seen, stack = set[str](), list(phases)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            node = graph.producers.get(name)
            stack += node.inputs if node else ()
    kernels = [
        name
        for name in seen & graph.constants.keys()
        if (sizes := graph.constants[name].sizes)[:1] == (channels,) and math.prod(sizes[-2:]) == 9
    ]
    if len(kernels) != 1 or len(graph.constants[kernels[0]].sizes) != 4:
        raise ValueError("the phases of a doubling do not come from one stored 3x3 kernel")
    return kernels[0]
