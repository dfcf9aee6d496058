"""What a bundle's graph may be made of, so that a few bytes of a file cannot take hours or all memory."""

import math
import re
from collections.abc import Sequence

__all__ = [
    "MAX_NODES",
    "MAX_TENSORS",
    "check_constant_node",
    "check_growth",
    "check_operator",
    "check_tensor",
]

MAX_NODES = MAX_TENSORS = 20_000
"""The largest exported graphs have about 1,100 of either. OpenVINO takes hours over 200,000 nodes."""

_MAX_EXPANDED = 2**24  # elements
_MAX_PAD = 1024
_MAX_SCALE = 16.0

# What `galip export` writes in all precisions, and what earlier exporters of PyTorch write for the same
# layers. None makes more of nothing, as ConstantOfShape, Range, Tile, OneHot and random numbers do.
_OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Constant Conv DepthToSpace
    DequantizeLinear Div Equal Erf Exp Expand Flatten Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool Greater GroupNormalization Identity InstanceNormalization LayerNormalization LeakyRelu
    Less Log MatMul Max Min Mul Neg Not Pad Pow QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceSum
    Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
    """,
    )
)
_OF_CONSTANTS = {"Cast", "Constant", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape"}
_OF_CONSTANTS |= {"Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that may have nothing but constants to work on: what they give is no larger.

A backend computes such nodes as it loads the graph, before anything can be said of their sizes.
"""
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""of an element, by TensorProto.DataType"""


def check_operator(name: str) -> None:
    """Raises ValueError for an operator that no exported graph has."""
    if name not in _OPERATORS:
        raise ValueError(f"an operator of it, {name!r:.80}, is none that exported graphs have")


def check_constant_node(operator: str) -> None:
    """Raises ValueError for an operator that could make more of constants than the file holds."""
    if operator not in _OF_CONSTANTS:
        raise ValueError(f"a {operator} of it has nothing but constants to work on")


def check_tensor(sizes: Sequence[int], kind: int, length: int, *, raw: bool) -> None:
    """Raises ValueError unless a tensor of these sizes and DataType has as many numbers as it says.

    `length`: bytes of its numbers; those that are not `raw` take at least a byte each.
    """
    if kind not in _BYTES:
        raise ValueError(f"a tensor of it has the data type {kind}, which no exported graph has")
    count = math.prod(sizes)
    if (count * _BYTES[kind] != length) if raw else (count > length):
        raise ValueError(f"a tensor of it says that it has {count:,} numbers, and has {length:,} bytes")


def check_growth(operator: str, numbers: Sequence[float] | None) -> None:
    """Check what decides how much an Expand, Pad or Resize makes of its input.

    `numbers`: the shape, the pads or the scales; None where they are not in the file. Raises ValueError.
    """
    if numbers is None:
        raise ValueError(f"how much its {operator} makes is not in the file")
    if operator == "Expand":
        fits = math.prod(max(abs(number), 1) for number in numbers) <= _MAX_EXPANDED
    elif operator == "Pad":
        fits = all(abs(number) <= _MAX_PAD for number in numbers)
    else:
        fits = all(0 < number <= _MAX_SCALE for number in numbers)
    if not fits:
        raise ValueError(f"its {operator} makes more than any exported graph: {list(numbers)!r:.80}")
