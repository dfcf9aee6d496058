"""The memory that a graph takes while it runs, computed before a backend sees it."""

import math
from collections.abc import Mapping, Sequence

from galip_runtime.bundle.onnx_reader import Node
from galip_runtime.bundle.onnx_shapes import TensorInfo, infer_shapes

__all__ = ["check_memory", "infer_sizes", "memory_limit"]

_MANY = 1000
"""pictures in the batch that checks that tensors grow no faster than the batch size"""
_COPIES = 8
"""Copies of the stored tensors, in other types and layouts, that a backend may make as it loads a graph. The
kernels of a sub-pixel convolution in w16a32 take eight: all parts and sums of one that is stored.
"""
_FOLDABLE = {"Add", "Cast", "Concat", "Constant", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear"}
_FOLDABLE |= {"Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose inputs may all be constants: a backend computes them as it loads the graph."""


def memory_limit(height: int, width: int) -> int:
    """Return how many elements a graph may hold at once, besides weights, per `height` by `width` picture.

    The released size holds 235 per pixel, the shipped one 192.
    """
    return min(max(2048 * height * width, 2**24), 2**28)


def check_memory(
    nodes: Sequence[Node],
    constants: Mapping[str, TensorInfo],
    inputs: Mapping[str, Sequence[int]],
    limit: int,
) -> None:
    """Check how many elements a graph holds at once; each tensor lives from its node to its last use.

    `constants`: the stored tensors. `inputs`: the inputs' sizes for one picture, batch size first.
    `limit`: elements at once, besides the stored ones and those computed from constants alone.

    Raises ValueError for more, for a tensor that grows faster than the batch size, for one whose size is
    unknown before the graph runs, and if nodes compute more than copies and sums from constants alone.
    """
    one, many = (
        infer_sizes(nodes, constants, {name: (batch, *sizes[1:]) for name, sizes in inputs.items()})
        for batch in (1, _MANY)
    )
    for name, sizes in one.items():
        if math.prod(many[name]) > _MANY * math.prod(sizes):
            raise ValueError(f"{name!r:.80} has shape {sizes} for one picture and {many[name]} for {_MANY:,}")
    last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
    fixed = {"", *constants}
    copies = live = 0
    max_copies = 2**24 + _COPIES * sum(math.prod(tensor.sizes) for tensor in constants.values())
    for index, node in enumerate(nodes):
        count = sum(math.prod(one[name]) for name in node.outputs)
        if fixed.issuperset(node.inputs):
            if node.operator not in _FOLDABLE:
                raise ValueError(f"the inputs of a {node.operator} are all constants")
            fixed.update(node.outputs)
            copies += count
        else:
            live += count
        if live > limit or copies > max_copies:
            raise ValueError(f"its {node.operator} takes more memory than any exported graph")
        done = {name for name in (*node.inputs, *node.outputs) if last_use.get(name, index) == index}
        live -= sum(math.prod(one[name]) for name in done - fixed - inputs.keys())


def infer_sizes(
    nodes: Sequence[Node], constants: Mapping[str, TensorInfo], inputs: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Return the sizes of all tensors for inputs of these sizes. Raises ValueError if one is unknown."""
    tensors = {**constants, **{name: TensorInfo(tuple(sizes)) for name, sizes in inputs.items()}}
    for node in nodes:
        for name in node.inputs:
            if name and name not in tensors:
                raise ValueError(f"{name!r:.80} is used before it is computed")
        operands = [tensors[name] if name else None for name in node.inputs]
        results = infer_shapes(node.operator, node.attributes, operands, len(node.outputs))
        tensors.update(zip(node.outputs, results, strict=True))
    return {name: tensor.sizes for name, tensor in tensors.items()}
