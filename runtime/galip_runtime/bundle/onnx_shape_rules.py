"""Shape rules, one for each operator that a bundle's graph may have.

These are the operators that `galip export` writes in all precisions, and those that earlier exporters of
PyTorch write for the same layers. None can make large tensors from nothing, as ConstantOfShape, Range, Tile,
OneHot and the random operators do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["RULES", "Array", "Operation", "Sizes", "TensorInfo", "slices"]

Sizes = tuple[int, ...]
Array = npt.NDArray[Any]


class TensorInfo(NamedTuple):
    """The facts about a tensor that are known before the graph runs."""

    sizes: Sizes
    values: tuple[float, ...] | None = None
    """the flat values, int64 or float32, of a small tensor in which every run for one picture has the same"""

    def array(self) -> Array:
        """Return the values in the tensor's shape. Raises ValueError if they are unknown."""
        if self.values is None:
            raise ValueError("it depends on numbers that are not in the file")
        return np.array(self.values, None if self.values else np.int64).reshape(self.sizes)

    def integers(self) -> list[int]:
        """Return the values, flat. Raises ValueError if they are unknown or not whole numbers."""
        values = self.array().ravel()
        if values.dtype.kind != "i":
            raise ValueError(f"{values.tolist()!r:.80} are not whole numbers")
        return [int(value) for value in values]


class Operation(NamedTuple):
    """A node as the rules see it."""

    attributes: Mapping[str, Any]
    inputs: Sequence[TensorInfo | None]
    outputs: int
    """number of outputs"""

    def sizes(self, index: int = 0) -> Sizes:
        """Return the sizes of an input. Raises ValueError if it is missing."""
        return self.input(index).sizes

    def input(self, index: int) -> TensorInfo:
        """Return an input. Raises ValueError if it is missing."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise ValueError(f"its input {index} is missing")
        return tensor

    def optional(self, index: int, attribute: str) -> list[int] | None:
        """Return the ints of an input, or of the attribute that older opsets have instead, or None."""
        if index < len(self.inputs) and self.inputs[index] is not None:
            return self.input(index).integers()
        return self.attributes.get(attribute)

    def axis(self, default: int = 0) -> int:
        """Return the attribute `axis`, from 0. Raises ValueError if the first input has no such axis."""
        return _axis(self.attributes.get("axis", default), len(self.sizes()))


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} is out of range for {rank} axes")
    return axis % max(rank, 1)


def _same(node: Operation) -> list[Sizes]:
    return [node.sizes()]


def _broadcast(node: Operation) -> list[Sizes]:
    return [np.broadcast_shapes(*(node.sizes(index) for index in range(len(node.inputs))))]


def _constant(node: Operation) -> list[Sizes]:
    return [node.attributes["value"].sizes]


def _shape(node: Operation) -> list[Sizes]:
    return [(len(node.sizes()[node.attributes.get("start", 0) : node.attributes.get("end")]),)]


# Products


def _matmul(node: Operation) -> list[Sizes]:
    (*left, rows, inner), (*right, other, columns) = node.sizes(0), node.sizes(1)
    if inner != other:
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return [(*np.broadcast_shapes(tuple(left), tuple(right)), rows, columns)]


def _gemm(node: Operation) -> list[Sizes]:
    (rows, inner), (other, columns) = (
        sizes[::-1] if node.attributes.get(transpose) else sizes
        for sizes, transpose in ((node.sizes(0), "transA"), (node.sizes(1), "transB"))
    )
    if inner != other:
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return [(rows, columns)]


def _window(node: Operation, kernel: Sequence[int], channels: int) -> list[Sizes]:
    batch, _, *spatial = node.sizes()
    ones, attributes = [1] * len(spatial), node.attributes
    pads, auto_pad = attributes.get("pads", [0, 0] * len(spatial)), attributes.get("auto_pad", "NOTSET")
    strides, dilations = (attributes.get(name, ones) for name in ("strides", "dilations"))
    outputs = []
    for axis, size in enumerate(spatial):
        stride, extent = strides[axis], dilations[axis] * (kernel[axis] - 1) + 1
        if auto_pad == "NOTSET":
            size += pads[axis] + pads[axis + len(spatial)]
        if auto_pad.startswith("SAME"):
            outputs.append(-(-size // stride))
        else:
            room = size - extent
            outputs.append((-(-room // stride) if attributes.get("ceil_mode") else room // stride) + 1)
    return [(batch, channels, *outputs)]


def _conv(node: Operation) -> list[Sizes]:
    channels, inner, *kernel = node.sizes(1)
    if node.sizes()[1] != inner * node.attributes.get("group", 1):
        raise ValueError(f"{node.sizes(0)} by {node.sizes(1)}")
    return _window(node, kernel, channels)


def _average_pool(node: Operation) -> list[Sizes]:
    return _window(node, node.attributes["kernel_shape"], node.sizes()[1])


def _global_pool(node: Operation) -> list[Sizes]:
    batch, channels, *spatial = node.sizes()
    return [(batch, channels, *(1 for _ in spatial))]


# Reshaping, joining and splitting


def _concat(node: Operation) -> list[Sizes]:
    axis, all_sizes = node.axis(), [node.sizes(index) for index in range(len(node.inputs))]
    if len({(*sizes[:axis], *sizes[axis + 1 :]) for sizes in all_sizes}) != 1:
        raise ValueError(f"{all_sizes!r:.80} along axis {axis}")
    result = list(all_sizes[0])
    result[axis] = sum(sizes[axis] for sizes in all_sizes)
    return [tuple(result)]


def _reshape(node: Operation) -> list[Sizes]:
    before, sizes = node.sizes(), node.input(1).integers()
    if not node.attributes.get("allowzero"):
        sizes = [size or before[axis] for axis, size in enumerate(sizes)]
    if -1 in sizes:
        axis = sizes.index(-1)
        sizes[axis] = 1
        sizes[axis] = math.prod(before) // math.prod(sizes)
    if math.prod(sizes) != math.prod(before):
        raise ValueError(f"{before} to {tuple(sizes)}")
    return [tuple(sizes)]


def _flatten(node: Operation) -> list[Sizes]:
    sizes, axis = node.sizes(), node.attributes.get("axis", 1)
    return [(math.prod(sizes[:axis]), math.prod(sizes[axis:]))]


def _transpose(node: Operation) -> list[Sizes]:
    sizes = node.sizes()
    order = node.attributes.get("perm", range(len(sizes))[::-1])
    if sorted(order) != list(range(len(sizes))):
        raise ValueError(f"axes {order}")
    return [tuple(sizes[axis] for axis in order)]


def _squeeze(node: Operation) -> list[Sizes]:
    sizes, axes = node.sizes(), node.optional(1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
    squeezed = {_axis(axis, len(sizes)) for axis in axes}
    if any(sizes[axis] != 1 for axis in squeezed):
        raise ValueError(f"axes {axes} of {sizes}")
    return [tuple(size for axis, size in enumerate(sizes) if axis not in squeezed)]


def _unsqueeze(node: Operation) -> list[Sizes]:
    axes = node.optional(1, "axes") or []
    rank = len(node.sizes()) + len(axes)
    new = {_axis(axis, rank) for axis in axes}
    sizes = iter(node.sizes())
    return [tuple(1 if axis in new else next(sizes) for axis in range(rank))]


def slices(node: Operation) -> tuple[slice, ...]:
    """Return a Slice's slice of each axis. Raises ValueError if its starts or ends are missing."""
    rank = len(node.sizes())
    starts, ends = node.optional(1, "starts"), node.optional(2, "ends")
    if starts is None or ends is None:
        raise ValueError("its starts or ends are missing")
    axes, steps = node.optional(3, "axes"), node.optional(4, "steps")
    parts = [slice(None)] * rank
    for index, axis in enumerate(axes if axes is not None else range(len(starts))):
        parts[_axis(axis, rank)] = slice(starts[index], ends[index], steps[index] if steps else 1)
    return tuple(parts)


def _slice(node: Operation) -> list[Sizes]:
    return [tuple(len(range(size)[part]) for size, part in zip(node.sizes(), slices(node), strict=True))]


def _split(node: Operation) -> list[Sizes]:
    sizes, axis = node.sizes(), node.axis()
    parts = node.optional(1, "split")
    if parts is None:
        part = -(-sizes[axis] // node.outputs)  # the last part may be smaller
        parts = [min(part, sizes[axis] - part * index) for index in range(node.outputs)]
    if sum(parts) != sizes[axis]:
        raise ValueError(f"{parts} of {sizes}")
    return [(*sizes[:axis], part, *sizes[axis + 1 :]) for part in parts]


def _depth_to_space(node: Operation) -> list[Sizes]:
    (batch, channels, height, width), block = node.sizes(), node.attributes["blocksize"]
    return [(batch, channels // block**2, height * block, width * block)]


# Gathering, resizing and reducing


def _gather(node: Operation) -> list[Sizes]:
    sizes, axis = node.sizes(), node.axis()
    return [(*sizes[:axis], *node.sizes(1), *sizes[axis + 1 :])]


def _gather_elements(node: Operation) -> list[Sizes]:
    return [node.sizes(1)]


def _gather_nd(node: Operation) -> list[Sizes]:
    batch, (*sizes, depth) = node.attributes.get("batch_dims", 0), node.sizes(1)
    return [(*sizes, *node.sizes()[batch + depth :])]


def _expand(node: Operation) -> list[Sizes]:
    return [np.broadcast_shapes(node.sizes(), tuple(abs(size) for size in node.input(1).integers()))]


def _pad(node: Operation) -> list[Sizes]:
    sizes, pads = list(node.sizes()), node.optional(1, "pads")
    axes = node.optional(3, "axes")
    if axes is None:
        axes = list(range(len(sizes)))
    if pads is None or len(pads) != 2 * len(axes):
        raise ValueError(f"pads {pads} of {sizes}")
    for index, axis in enumerate(axes):
        sizes[_axis(axis, len(sizes))] += pads[index] + pads[index + len(axes)]
    return [tuple(sizes)]


def _resize(node: Operation) -> list[Sizes]:
    if (
        set(node.attributes) & {"axes"}
        or node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise ValueError("it has axes or keeps the aspect ratio")
    sizes = node.sizes()
    if len(node.inputs) > 3:
        resized = node.input(3).integers()
    else:
        scales = node.input(2).array().ravel().tolist()
        resized = [math.floor(size * scale) for size, scale in zip(sizes, scales, strict=True)]
    if len(resized) != len(sizes):
        raise ValueError(f"{sizes} to {resized}")
    return [tuple(resized)]


def _reduce(node: Operation) -> list[Sizes]:
    return _without(node, node.optional(1, "axes"))


def _arg(node: Operation) -> list[Sizes]:
    return _without(node, [node.axis()])


def _without(node: Operation, axes: Sequence[int] | None) -> list[Sizes]:
    sizes = node.sizes()
    if not axes:
        if node.attributes.get("noop_with_empty_axes"):
            return [sizes]
        axes = range(len(sizes))
    gone, keep = {_axis(axis, len(sizes)) for axis in axes}, node.attributes.get("keepdims", 1)
    return [tuple(1 if axis in gone else size for axis, size in enumerate(sizes) if keep or axis not in gone)]


_SAME = (
    "Abs BatchNormalization Cast Clip DequantizeLinear Erf Exp Gelu GroupNormalization Identity "
    "InstanceNormalization LayerNormalization LeakyRelu Log Neg Not QuantizeLinear Reciprocal Relu Sigmoid "
    "Softmax Sqrt Tanh"
)
_BROADCAST = "Add And Div Equal Greater Less Max Min Mul Pow Sub Where"
RULES: dict[str, Callable[[Operation], list[Sizes]]] = {
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
