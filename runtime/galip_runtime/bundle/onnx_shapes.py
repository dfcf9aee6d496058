"""How large each tensor of a graph is, worked out from its nodes and not from what the file says of it.

One rule for each operator that a bundle's graph may have: what `galip export` writes in all precisions, and
what earlier exporters of PyTorch write for the same layers. None makes much of nothing, as ConstantOfShape,
Range, Tile, OneHot and random numbers do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["OPERATORS", "TensorInfo", "infer_shapes"]

_MAX_NUMBERS = 64
"""Tensors of more numbers are not followed: shapes, axes, pads and the like have fewer."""
_MAX_EXACT = 2**24
"""Whole numbers up to here are the same in all the types that a Cast may lead to."""
_EXACT_TYPES = {1, 6, 7, 11}  # TensorProto.DataType: float32, int32, int64, float64

Sizes = tuple[int, ...]
_Array = npt.NDArray[Any]


class TensorInfo(NamedTuple):
    """What is known of a tensor before the graph runs."""

    sizes: Sizes
    numbers: tuple[float, ...] | None = None
    """of a small one whose numbers are the same in every run for a picture: int64 or float32"""

    def array(self) -> _Array:
        """Its numbers in its shape. Raises ValueError where they are not known."""
        if self.numbers is None:
            raise ValueError("it depends on numbers that are not in the file")
        return np.array(self.numbers, None if self.numbers else np.int64).reshape(self.sizes)

    def whole(self) -> list[int]:
        """Its numbers, flat. Raises ValueError where they are not known, and not whole."""
        numbers = self.array().ravel()
        if numbers.dtype.kind != "i":
            raise ValueError(f"{numbers.tolist()!r:.80} are not whole numbers")
        return [int(number) for number in numbers]


class _Node(NamedTuple):
    attributes: Mapping[str, Any]
    inputs: Sequence[TensorInfo | None]
    outputs: int

    def sizes(self, index: int = 0) -> Sizes:
        return self.input(index).sizes

    def input(self, index: int) -> TensorInfo:
        known = self.inputs[index] if index < len(self.inputs) else None
        if known is None:
            raise ValueError(f"its input {index} is missing")
        return known

    def optional(self, index: int, attribute: str) -> list[int] | None:
        """Whole numbers of an input, or of the attribute that they were in before; None without either."""
        if index < len(self.inputs) and self.inputs[index] is not None:
            return self.input(index).whole()
        return self.attributes.get(attribute)

    def axis(self, default: int = 0) -> int:
        return _axis(self.attributes.get("axis", default), len(self.sizes()))


def infer_shapes(
    operator: str, attributes: Mapping[str, Any], inputs: Sequence[TensorInfo | None], outputs: int
) -> list[TensorInfo]:
    """What a node of one of the `OPERATORS` gives.

    `inputs`: None for an optional one that is left out. Raises ValueError where that cannot be told.
    """
    node = _Node(attributes, inputs, outputs)
    try:
        given = _RULES[operator](node)
        if len(given) != outputs or any(size < 0 for sizes in given for size in sizes):
            raise ValueError(f"it would give {given!r:.80} as {outputs} outputs")
        if operator == "Constant":
            return [attributes["value"]]
        numbers = _numbers(operator, node, given[0]) if outputs == 1 else None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # malformed in one of many ways
        raise ValueError(f"how much its {operator} makes cannot be told: {error}") from error
    return [TensorInfo(sizes, numbers) for sizes in given]


def _numbers(operator: str, node: _Node, sizes: Sizes) -> tuple[float, ...] | None:
    """The numbers that a node gives, where they can be told before it runs."""
    if operator == "Shape":
        return tuple(node.sizes()[node.attributes.get("start", 0) : node.attributes.get("end")])
    rule = _NUMBER_RULES.get(operator)
    known = [tensor for tensor in node.inputs if tensor is not None]
    if operator == "Cast" and node.attributes["to"] not in _EXACT_TYPES:
        return None
    if rule is None or math.prod(sizes) > _MAX_NUMBERS or any(tensor.numbers is None for tensor in known):
        return None
    numbers = rule(node).ravel().tolist()
    return tuple(numbers) if all(abs(number) <= _MAX_EXACT for number in numbers) else None


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of {rank}")
    return axis % max(rank, 1)


def _same(node: _Node) -> list[Sizes]:
    return [node.sizes()]


def _broadcast(node: _Node) -> list[Sizes]:
    return [np.broadcast_shapes(*(node.sizes(index) for index in range(len(node.inputs))))]


def _constant(node: _Node) -> list[Sizes]:
    return [node.attributes["value"].sizes]


def _shape(node: _Node) -> list[Sizes]:
    return [(len(node.sizes()[node.attributes.get("start", 0) : node.attributes.get("end")]),)]


# Products


def _matmul(node: _Node) -> list[Sizes]:
    (*left, rows, inner), (*right, other, columns) = node.sizes(0), node.sizes(1)
    if inner != other:
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return [(*np.broadcast_shapes(tuple(left), tuple(right)), rows, columns)]


def _gemm(node: _Node) -> list[Sizes]:
    (rows, inner), (other, columns) = (
        sizes[::-1] if node.attributes.get(turned) else sizes
        for sizes, turned in ((node.sizes(0), "transA"), (node.sizes(1), "transB"))
    )
    if inner != other:
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return [(rows, columns)]


def _window(node: _Node, kernel: Sequence[int], channels: int) -> list[Sizes]:
    batch, _, *spatial = node.sizes()
    ones, attributes = [1] * len(spatial), node.attributes
    pads, padded = attributes.get("pads", [0, 0] * len(spatial)), attributes.get("auto_pad", "NOTSET")
    strides, dilations = (attributes.get(name, ones) for name in ("strides", "dilations"))
    given = []
    for axis, size in enumerate(spatial):
        stride, reach = strides[axis], dilations[axis] * (kernel[axis] - 1) + 1
        if padded == "NOTSET":
            size += pads[axis] + pads[axis + len(spatial)]
        if padded.startswith("SAME"):
            given.append(-(-size // stride))
        else:
            room = size - reach
            given.append((-(-room // stride) if attributes.get("ceil_mode") else room // stride) + 1)
    return [(batch, channels, *given)]


def _conv(node: _Node) -> list[Sizes]:
    channels, inner, *kernel = node.sizes(1)
    if node.sizes()[1] != inner * node.attributes.get("group", 1):
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return _window(node, kernel, channels)


def _average_pool(node: _Node) -> list[Sizes]:
    return _window(node, node.attributes["kernel_shape"], node.sizes()[1])


def _global_pool(node: _Node) -> list[Sizes]:
    batch, channels, *spatial = node.sizes()
    return [(batch, channels, *(1 for _ in spatial))]


# Changes of shape


def _concat(node: _Node) -> list[Sizes]:
    axis, all_sizes = node.axis(), [node.sizes(index) for index in range(len(node.inputs))]
    if len({(*sizes[:axis], *sizes[axis + 1 :]) for sizes in all_sizes}) != 1:
        raise ValueError(f"{all_sizes!r:.80} along axis {axis}")
    joined = list(all_sizes[0])
    joined[axis] = sum(sizes[axis] for sizes in all_sizes)
    return [tuple(joined)]


def _reshape(node: _Node) -> list[Sizes]:
    before, sizes = node.sizes(), node.input(1).whole()
    if not node.attributes.get("allowzero"):
        sizes = [size or before[axis] for axis, size in enumerate(sizes)]
    if -1 in sizes:
        place = sizes.index(-1)
        sizes[place] = 1
        sizes[place] = math.prod(before) // math.prod(sizes)
    if math.prod(sizes) != math.prod(before):
        raise ValueError(f"{before} to {tuple(sizes)}")
    return [tuple(sizes)]


def _flatten(node: _Node) -> list[Sizes]:
    sizes, axis = node.sizes(), node.attributes.get("axis", 1)
    return [(math.prod(sizes[:axis]), math.prod(sizes[axis:]))]


def _transpose(node: _Node) -> list[Sizes]:
    sizes = node.sizes()
    order = node.attributes.get("perm", range(len(sizes))[::-1])
    if sorted(order) != list(range(len(sizes))):
        raise ValueError(f"axes {order}")
    return [tuple(sizes[axis] for axis in order)]


def _squeeze(node: _Node) -> list[Sizes]:
    sizes, axes = node.sizes(), node.optional(1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
    places = {_axis(axis, len(sizes)) for axis in axes}
    if any(sizes[axis] != 1 for axis in places):
        raise ValueError(f"axes {axes} of {sizes}")
    return [tuple(size for axis, size in enumerate(sizes) if axis not in places)]


def _unsqueeze(node: _Node) -> list[Sizes]:
    axes = node.optional(1, "axes") or []
    rank = len(node.sizes()) + len(axes)
    places = {_axis(axis, rank) for axis in axes}
    rest = iter(node.sizes())
    return [tuple(1 if axis in places else next(rest) for axis in range(rank))]


def _slices(node: _Node) -> tuple[slice, ...]:
    rank = len(node.sizes())
    starts, ends = node.optional(1, "starts"), node.optional(2, "ends")
    if starts is None or ends is None:
        raise ValueError("where it begins and ends is missing")
    axes, steps = node.optional(3, "axes"), node.optional(4, "steps")
    slices = [slice(None)] * rank
    for index, axis in enumerate(axes if axes is not None else range(len(starts))):
        slices[_axis(axis, rank)] = slice(starts[index], ends[index], steps[index] if steps else 1)
    return tuple(slices)


def _slice(node: _Node) -> list[Sizes]:
    return [tuple(len(range(size)[part]) for size, part in zip(node.sizes(), _slices(node), strict=True))]


def _split(node: _Node) -> list[Sizes]:
    sizes, axis = node.sizes(), node.axis()
    parts = node.optional(1, "split")
    if parts is None:
        part = -(-sizes[axis] // node.outputs)  # the last one is smaller
        parts = [min(part, sizes[axis] - part * index) for index in range(node.outputs)]
    if sum(parts) != sizes[axis]:
        raise ValueError(f"{parts} of {sizes}")
    return [(*sizes[:axis], part, *sizes[axis + 1 :]) for part in parts]


def _depth_to_space(node: _Node) -> list[Sizes]:
    (batch, channels, height, width), block = node.sizes(), node.attributes["blocksize"]
    return [(batch, channels // block**2, height * block, width * block)]


# Looking up, making more and making less


def _gather(node: _Node) -> list[Sizes]:
    sizes, axis = node.sizes(), node.axis()
    return [(*sizes[:axis], *node.sizes(1), *sizes[axis + 1 :])]


def _gather_elements(node: _Node) -> list[Sizes]:
    return [node.sizes(1)]


def _gather_nd(node: _Node) -> list[Sizes]:
    batch, (*places, depth) = node.attributes.get("batch_dims", 0), node.sizes(1)
    return [(*places, *node.sizes()[batch + depth :])]


def _expand(node: _Node) -> list[Sizes]:
    return [np.broadcast_shapes(node.sizes(), tuple(abs(size) for size in node.input(1).whole()))]


def _pad(node: _Node) -> list[Sizes]:
    sizes, pads = list(node.sizes()), node.optional(1, "pads")
    axes = node.optional(3, "axes")
    places = range(len(sizes)) if axes is None else axes
    if pads is None or len(pads) != 2 * len(places):
        raise ValueError(f"pads {pads} of {sizes}")
    for index, axis in enumerate(places):
        sizes[_axis(axis, len(sizes))] += pads[index] + pads[index + len(places)]
    return [tuple(sizes)]


def _resize(node: _Node) -> list[Sizes]:
    if (
        set(node.attributes) & {"axes"}
        or node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise ValueError("it scales some axes by others")
    sizes = node.sizes()
    if len(node.inputs) > 3:
        (*wanted,) = node.input(3).whole()
    else:
        scales = node.input(2).array().ravel().tolist()
        wanted = [math.floor(size * scale) for size, scale in zip(sizes, scales, strict=True)]
    if len(wanted) != len(sizes):
        raise ValueError(f"{sizes} to {wanted}")
    return [tuple(wanted)]


def _reduce(node: _Node) -> list[Sizes]:
    return _without(node, node.optional(1, "axes"))


def _arg(node: _Node) -> list[Sizes]:
    return _without(node, [node.axis()])


def _without(node: _Node, axes: Sequence[int] | None) -> list[Sizes]:
    sizes = node.sizes()
    if not axes:
        if node.attributes.get("noop_with_empty_axes"):
            return [sizes]
        axes = range(len(sizes))
    places, keep = {_axis(axis, len(sizes)) for axis in axes}, node.attributes.get("keepdims", 1)
    return [
        tuple(1 if axis in places else size for axis, size in enumerate(sizes) if keep or axis not in places)
    ]


_SAME = (
    "Abs BatchNormalization Cast Clip DequantizeLinear Erf Exp Gelu GroupNormalization Identity "
    "InstanceNormalization LayerNormalization LeakyRelu Log Neg Not QuantizeLinear Reciprocal Relu Sigmoid "
    "Softmax Sqrt Tanh"
)
_BROADCAST = "Add And Div Equal Greater Less Max Min Mul Pow Sub Where"
_RULES: dict[str, Callable[[_Node], list[Sizes]]] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_BROADCAST.split(), _broadcast),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), _reduce),
    "ArgMax": _arg,
    "AveragePool": _average_pool,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
OPERATORS = frozenset(_RULES)


def _reshaped(rule: Callable[[_Node], list[Sizes]]) -> Callable[[_Node], _Array]:
    return lambda node: node.input(0).array().reshape(rule(node)[0])


def _cast(node: _Node) -> _Array:
    return node.input(0).array().astype(np.float64 if node.attributes["to"] in (1, 11) else np.int64)


_NUMBER_RULES: dict[str, Callable[[_Node], _Array]] = {
    "Cast": _cast,
    "Concat": lambda node: np.concatenate(
        [node.input(i).array() for i in range(len(node.inputs))], node.axis()
    ),
    "Gather": lambda node: np.take(node.input(0).array(), node.input(1).array(), node.axis()),
    "Identity": lambda node: node.input(0).array(),
    "Mul": lambda node: node.input(0).array() * node.input(1).array(),
    "Reshape": _reshaped(_reshape),
    "Slice": lambda node: node.input(0).array()[_slices(node)],
    "Squeeze": _reshaped(_squeeze),
    "Unsqueeze": _reshaped(_unsqueeze),
}
"""How a graph puts shapes together, as exports before the rewrites do for an Expand."""
