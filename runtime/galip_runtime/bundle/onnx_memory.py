"""How much memory a graph takes while it runs, told before a backend sees it."""

import math
from collections.abc import Mapping, Sequence

from galip_runtime.bundle.onnx_reader import Node
from galip_runtime.bundle.onnx_shapes import TensorInfo, infer_shapes

__all__ = ["check_memory", "memory_limit"]

_MANY = 1000
"""pictures, when it is checked that what a graph holds grows no faster than their number"""
_COPIES = 2
"""of what is stored, in other types and layouts, that a backend may make as it loads a graph"""
_OF_CONSTANTS = {"Cast", "Constant", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape"}
_OF_CONSTANTS |= {"Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that may have nothing but constants to work on: a backend computes them as it loads the graph."""


def memory_limit(height: int, width: int) -> int:
    """Numbers that a graph may hold at once for one picture of `height` by `width`, beside its weights.

    The released size holds 235 for a pixel, the shipped one 192.
    """
    return min(max(2048 * height * width, 2**24), 2**28)


def check_memory(
    nodes: Sequence[Node],
    constants: Mapping[str, TensorInfo],
    inputs: Mapping[str, Sequence[int]],
    limit: int,
) -> None:
    """Check how many numbers a graph holds at once, each tensor from the node that gives it to its last use.

    `constants`: the tensors that are stored. `inputs`: their sizes for one picture, its number first.
    `limit`: numbers at once, beside the stored ones and what is computed of those alone.

    Raises ValueError for more, for a tensor that grows faster than the number of pictures, for one whose size
    cannot be told before the graph runs, and for more than copies computed of constants.
    """
    one, many = (
        _sizes(nodes, constants, {name: (batch, *sizes[1:]) for name, sizes in inputs.items()})
        for batch in (1, _MANY)
    )
    for name, sizes in one.items():
        if math.prod(many[name]) > _MANY * math.prod(sizes):
            raise ValueError(f"{name!r:.80} is {sizes} for one picture and {many[name]} for {_MANY:,}")
    last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
    fixed = {"", *constants}
    copied = held = 0
    copies = 2**24 + _COPIES * sum(math.prod(known.sizes) for known in constants.values())
    for index, node in enumerate(nodes):
        made = sum(math.prod(one[name]) for name in node.outputs)
        if fixed.issuperset(node.inputs):
            if node.operator not in _OF_CONSTANTS:
                raise ValueError(f"a {node.operator} of it has nothing but constants to work on")
            fixed.update(node.outputs)
            copied += made
        else:
            held += made
        if held > limit or copied > copies:
            raise ValueError(f"its {node.operator} takes more memory than any exported graph")
        done = {name for name in (*node.inputs, *node.outputs) if last_use.get(name, index) == index}
        held -= sum(math.prod(one[name]) for name in done - fixed - inputs.keys())


def _sizes(
    nodes: Sequence[Node], constants: Mapping[str, TensorInfo], inputs: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The sizes of all tensors for inputs of these sizes. Raises ValueError where they cannot be told."""
    known = {**constants, **{name: TensorInfo(tuple(sizes)) for name, sizes in inputs.items()}}
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise ValueError(f"{name!r:.80} is used before it is computed")
        operands = [known[name] if name else None for name in node.inputs]
        results = infer_shapes(node.operator, node.attributes, operands, len(node.outputs))
        known.update(zip(node.outputs, results, strict=True))
    return {name: tensor.sizes for name, tensor in known.items()}
