"""Weights stored as fp16, computed with in fp32: half the file, for a backend that has fp32 alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["half_weights"]

_LEAST = 1024
"""numbers of a tensor from which on it is worth a node"""


def half_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` with its large float32 tensors in fp16, each behind a Cast, which backends compute at loading.

    A tensor with numbers beyond fp16's 65504 stays as it is; `proto` does, too.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    casts = []
    for tensor in result.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST:
            continue
        weight = numpy_helper.to_array(tensor)
        if np.abs(weight).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result
