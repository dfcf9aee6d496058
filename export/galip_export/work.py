"""How much there is to compute in a graph."""

from __future__ import annotations

import numpy as np
import onnx

__all__ = ["multiply_adds"]


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiplications with an addition each, of a batch of one, by the name of each convolution and product.

    Dynamic sizes count as 1.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(size.dim_value or 1 for size in sizes)
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            of_one = np.prod(shapes[node.input[1]][1:])
        elif node.op_type == "Gemm":
            flipped = any(each.name == "transA" and each.i for each in node.attribute)
            of_one = shapes[node.input[0]][0 if flipped else 1]
        elif node.op_type == "MatMul":
            of_one = shapes[node.input[0]][-1]
        else:
            continue
        found[node.name] = int(np.prod(shapes[node.output[0]]) * of_one)
    return found
