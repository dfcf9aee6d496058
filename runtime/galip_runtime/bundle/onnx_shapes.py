"""Shape inference for a bundle's graph, from its nodes and not from what the file claims."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from galip_runtime.bundle.onnx_shape_rules import RULES, Array, Operation, Sizes, TensorInfo, slices

__all__ = ["OPERATORS", "TensorInfo", "infer_shapes"]

OPERATORS = frozenset(RULES)

_MAX_VALUES = 64
"""Values of larger tensors are not tracked: shapes, axes, pads and the like are smaller."""
_MAX_EXACT = 2**24
"""Whole numbers up to here are equal in all the types that a Cast may convert to."""
_EXACT_TYPES = {1, 6, 7, 11}  # TensorProto.DataType: float32, int32, int64, float64


def infer_shapes(
    operator: str, attributes: Mapping[str, Any], inputs: Sequence[TensorInfo | None], outputs: int
) -> list[TensorInfo]:
    """Infer the outputs of a node with one of the `OPERATORS`.

    `inputs`: None for an omitted optional one. Raises ValueError if the outputs cannot be inferred.
    """
    node = Operation(attributes, inputs, outputs)
    try:
        shapes = RULES[operator](node)
        if len(shapes) != outputs or any(size < 0 for sizes in shapes for size in sizes):
            raise ValueError(f"it would compute {shapes!r:.80} as {outputs} outputs")
        if operator == "Constant":
            return [attributes["value"]]
        values = _values(operator, node, shapes[0]) if outputs == 1 else None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # malformed in one of many ways
        raise ValueError(f"the shape of its {operator} cannot be inferred: {error}") from error
    return [TensorInfo(sizes, values) for sizes in shapes]


def _values(operator: str, node: Operation, sizes: Sizes) -> tuple[float, ...] | None:
    """Return the values that a node computes, flat, or None if they depend on a run."""
    if operator == "Shape":
        return tuple(node.sizes()[node.attributes.get("start", 0) : node.attributes.get("end")])
    rule = _VALUE_RULES.get(operator)
    operands = [tensor for tensor in node.inputs if tensor is not None]
    if operator == "Cast" and node.attributes["to"] not in _EXACT_TYPES:
        return None
    if rule is None or math.prod(sizes) > _MAX_VALUES or any(tensor.values is None for tensor in operands):
        return None
    values = rule(node).ravel().tolist()
    return tuple(values) if all(abs(value) <= _MAX_EXACT for value in values) else None


def _reshaped(operator: str) -> Callable[[Operation], Array]:
    return lambda node: node.input(0).array().reshape(RULES[operator](node)[0])


def _cast(node: Operation) -> Array:
    return node.input(0).array().astype(np.float64 if node.attributes["to"] in (1, 11) else np.int64)


_VALUE_RULES: dict[str, Callable[[Operation], Array]] = {
    "Cast": _cast,
    "Concat": lambda node: np.concatenate(
        [node.input(i).array() for i in range(len(node.inputs))], node.axis()
    ),
    "Gather": lambda node: np.take(node.input(0).array(), node.input(1).array(), node.axis()),
    "Identity": lambda node: node.input(0).array(),
    "Mul": lambda node: node.input(0).array() * node.input(1).array(),
    "Reshape": _reshaped("Reshape"),
    "Slice": lambda node: node.input(0).array()[slices(node)],
    "Squeeze": _reshaped("Squeeze"),
    "Unsqueeze": _reshaped("Unsqueeze"),
}
"""The operators with which graphs compute shapes, such as that of an Expand in exports without rewrites."""
