"""Changes to ONNX graphs that the format allows but that no exporter makes."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from fuzz.mutation import odd_text, pick
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["forge"]

Rng = np.random.Generator

_SIZES = (0, 1, 2, 3, 7, 8, 64, 1000, 65_536, 2**20, 2**31 - 1, 2**31, 2**62, -1, -2)
_OPERATIONS = (
    "Add", "ArgMax", "Cast", "Compress", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose",
    "CumSum", "DepthToSpace", "Div", "Einsum", "EyeLike", "Expand", "Flatten", "Gather", "GatherND",
    "Gemm", "Identity", "If", "LayerNormalization", "Loop", "LSTM", "MatMul", "Mul", "NonZero", "OneHot",
    "Pad", "Pow", "RandomNormal", "Range", "ReduceSum", "Relu", "Reshape", "Resize", "ScatterND",
    "SequenceAt", "Shape", "Size", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Tile", "TopK",
    "Transpose", "Unique", "Unsqueeze", "Where", "NoSuchOperation",
)  # fmt: skip


def forge(model: ModelProto, rng: Rng) -> str:
    """Change something and return what."""
    while True:
        change = pick(rng, _CHANGES)
        with contextlib.suppress(LookupError):  # there is nothing of that kind to change
            change(model, rng)
            return str(change.__name__)


def _value(model: ModelProto, rng: Rng) -> onnx.ValueInfoProto:
    graph = model.graph
    return pick(rng, [*graph.input, *graph.output, *graph.input, *graph.output, *graph.value_info])


def _name(model: ModelProto, rng: Rng) -> str:
    graph = model.graph
    names = [name for node in graph.node for name in node.output]
    return str(
        pick(rng, [*names, *(tensor.name for tensor in graph.initializer), *(v.name for v in graph.input)])
    )


def _add(model: ModelProto, operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
    model.graph.node.append(helper.make_node(operation, inputs, outputs, **attributes))


def _constant(model: ModelProto, rng: Rng, numbers: object, dtype: type = np.int64) -> str:
    name = f"constant{rng.integers(2**62)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, dtype), name))
    return name


def _renamed_output(model: ModelProto, rng: Rng) -> tuple[str, str]:
    """Rename an output. Return its new name, and the old one, which no node computes now."""
    name, inner = pick(rng, model.graph.output).name, f"inner{rng.integers(2**62)}"
    for node in model.graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = inner
    return inner, name


# Descriptions of tensors


def _size(model: ModelProto, rng: Rng) -> None:
    shape = _value(model, rng).type.tensor_type.shape
    if not shape.dim or rng.random() < 0.1:
        shape.dim.add()
    dim = pick(rng, shape.dim)
    if rng.random() < 0.2:
        dim.dim_param = odd_text(rng).encode("utf-8", "replace").decode()
    elif dim.dim_value and rng.random() < 0.3:
        dim.dim_value += pick(rng, (1, -1))
    else:
        dim.dim_value = pick(rng, _SIZES)


def _element_type(model: ModelProto, rng: Rng) -> None:
    _value(model, rng).type.tensor_type.elem_type = int(rng.integers(25))


def _no_type(model: ModelProto, rng: Rng) -> None:
    _value(model, rng).ClearField("type")


def _other_name(model: ModelProto, rng: Rng) -> None:
    _value(model, rng).name = pick(rng, (_name(model, rng), "", "noise", "sentence", "condition", "image"))


def _more_outputs(model: ModelProto, rng: Rng) -> None:
    values = pick(rng, (model.graph.output, model.graph.input))
    values.append(helper.make_tensor_value_info(_name(model, rng), TensorProto.FLOAT, ["N", 1]))


def _fewer_values(model: ModelProto, rng: Rng) -> None:
    values = pick(rng, (model.graph.output, model.graph.input, model.graph.value_info))
    if values:
        values.remove(pick(rng, values))


def _versions(model: ModelProto, rng: Rng) -> None:
    version = pick(rng, (0, 1, 6, 7, 13, 19, 21, 22, 23, 24, 25, 1000, 2**31, -1))
    if rng.random() < 0.3:
        model.ir_version = version
    else:
        model.opset_import[0].version = version


def _domain(model: ModelProto, rng: Rng) -> None:
    domain = pick(rng, ("com.microsoft", "ai.onnx.ml", "ai.onnx.training", "mine"))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    if model.graph.node:
        pick(rng, model.graph.node).domain = domain


def _beside_the_graph(model: ModelProto, rng: Rng) -> None:
    kind = rng.integers(4)
    if kind == 0:
        model.functions.add().name = "f"
    elif kind == 1:
        model.training_info.add()
    elif kind == 2:
        model.metadata_props.add(key=odd_text(rng).encode("utf-8", "replace").decode(), value="x" * 100_000)
    else:
        model.graph.sparse_initializer.add().dims.append(pick(rng, _SIZES))


# Nodes


def _operation(model: ModelProto, rng: Rng) -> None:
    pick(rng, model.graph.node).op_type = pick(rng, _OPERATIONS)


def _attribute(model: ModelProto, rng: Rng) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = pick(rng, nodes)
    attribute = pick(rng, node.attribute)
    if rng.random() < 0.2:
        node.attribute.remove(attribute)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = pick(rng, _SIZES)
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = pick(rng, _SIZES)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = pick(rng, (0.0, -1.0, 1e30, float("nan"), float("inf")))
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = odd_text(rng).encode("utf-8", "surrogatepass")
    else:
        attribute.type = pick(rng, (1, 2, 3, 4, 5, 6, 7, 8))


def _new_attribute(model: ModelProto, rng: Rng) -> None:
    name = pick(
        rng, ("axis", "axes", "to", "group", "strides", "pads", "allowzero", "blocksize", "value", "perm")
    )
    value = pick(rng, (pick(rng, _SIZES), [pick(rng, _SIZES), 1], 0.5, "x"))
    pick(rng, model.graph.node).attribute.append(helper.make_attribute(name, value))


def _rewired(model: ModelProto, rng: Rng) -> None:
    """Replace an input by any tensor, which may make a cycle."""
    node = pick(rng, model.graph.node)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = pick(
            rng, (_name(model, rng), _name(model, rng), "", "x")
        )


def _other_inputs(model: ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    inputs = list(node.input)
    kind = rng.integers(3)
    if kind == 0:
        inputs.reverse()
    elif kind == 1:
        inputs = inputs[:-1]
    else:
        inputs += [_name(model, rng)] * pick(rng, (1, 100))
    del node.input[:]
    node.input.extend(inputs)


def _node_gone(model: ModelProto, rng: Rng) -> None:
    if len(model.graph.node) > 1:
        model.graph.node.remove(pick(rng, model.graph.node))


def _node_twice(model: ModelProto, rng: Rng) -> None:
    model.graph.node.append(pick(rng, model.graph.node))


def _loop(model: ModelProto, rng: Rng) -> None:
    """Pass an output through a loop of 2^62 iterations."""
    inner, name = _renamed_output(model, rng)
    boolean, integer = (helper.make_tensor_value_info(n, t, []) for n, t in (("go", 9), ("i", 7)))
    held = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("held", "new")]
    nodes = [helper.make_node("Identity", ["held"], ["new"]), helper.make_node("Identity", ["go"], ["on"])]
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(nodes, "body", [integer, boolean, held[0]], [on, held[1]])
    times, go = _constant(model, rng, 2**62), _constant(model, rng, True, np.bool_)
    _add(model, "Loop", [times, go, inner], [name], body=body)


# Weights


def _weight(model: ModelProto, rng: Rng) -> TensorProto:
    return pick(rng, model.graph.initializer) if model.graph.initializer else model.graph.initializer.add()


def _weight_sizes(model: ModelProto, rng: Rng) -> None:
    tensor = _weight(model, rng)
    if tensor.dims and rng.random() < 0.8:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = pick(rng, _SIZES)
    else:
        tensor.dims.append(pick(rng, _SIZES))


def _weight_type(model: ModelProto, rng: Rng) -> None:
    _weight(model, rng).data_type = int(rng.integers(25))


def _weight_data(model: ModelProto, rng: Rng) -> None:
    tensor = _weight(model, rng)
    data = tensor.raw_data
    tensor.raw_data = pick(rng, (b"", data[:-1], data + b"\0", data * 2, rng.bytes(len(data))))


def _weight_values(model: ModelProto, rng: Rng) -> None:
    """Change a number in a weight, which may be a size or an index."""
    tensor = _weight(model, rng)
    if tensor.data_location == TensorProto.EXTERNAL:  # by another change
        return
    try:
        numbers = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, KeyError, AttributeError):  # another change has broken it
        return
    if numbers.size == 0:
        return
    place = int(rng.integers(numbers.size))
    odd = _SIZES if numbers.dtype.kind in "iu" else (np.nan, np.inf, -np.inf, 3e38, 0.0)
    with np.errstate(all="ignore"):
        numbers.reshape(-1)[place] = np.array(pick(rng, odd)).astype(numbers.dtype)
    tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))


def _weight_elsewhere(model: ModelProto, rng: Rng) -> None:
    tensor = _weight(model, rng)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {
        "location": pick(rng, ("/etc/passwd", "manifest.json", "../x")),
        "length": "16",
    }.items():
        tensor.external_data.add(key=key, value=value)


# Outputs with other rows, sizes and types


def _rows(model: ModelProto, rng: Rng) -> None:
    inner, name = _renamed_output(model, rng)
    kind = rng.integers(6)
    if kind == 0:
        _add(model, "Concat", [inner] * pick(rng, (2, 3)), [name], axis=pick(rng, (0, 1, -1)))
    elif kind == 1:
        first, last = pick(rng, ((0, 0), (0, 1), (1, 2**62), (-1, 2**62)))
        ends = [_constant(model, rng, [number]) for number in (first, last, 0)]
        _add(model, "Slice", [inner, *ends], [name])
    elif kind == 2:
        shape = pick(rng, ([-1], [1, -1], [0, -1], [-1, 3, 8, 8], [3, -1, 8, 8], [-1, 6], [2, -1, 1, 1, 1]))
        _add(model, "Reshape", [inner, _constant(model, rng, shape)], [name])
    elif kind == 3:
        _add(model, "Unsqueeze", [inner, _constant(model, rng, [0])], [name])
    elif kind == 4:
        _add(model, "NonZero", [inner], [name])
    else:
        _add(model, "Transpose", [inner], [name])


def _cast(model: ModelProto, rng: Rng) -> None:
    inner, name = _renamed_output(model, rng)
    _add(model, "Cast", [inner], [name], to=int(pick(rng, (1, 6, 7, 9, 10, 11, 16))))


def _another_output(model: ModelProto, rng: Rng) -> None:
    """Make another tensor the output, such as a weight, which no input changes."""
    _, name = _renamed_output(model, rng)
    _add(model, "Identity", [_name(model, rng)], [name])


# Memory and time


def _large_constant(model: ModelProto, rng: Rng) -> None:
    """Add a tensor that exists only when run or folded: up to 40 GB, or of an overflowing size."""
    inner, name = _renamed_output(model, rng)
    size = int(pick(rng, (10**6, 10**8, 1_500_000_000, 10**10, 2**61)))
    shape, dtype = _constant(model, rng, [size]), TensorProto.FLOAT
    if rng.random() < 0.3:
        _add(model, "RandomNormal", [], ["large"], shape=[size], dtype=dtype)
    elif rng.random() < 0.5:
        value = helper.make_tensor("value", dtype, [1], [0.0])
        _add(model, "ConstantOfShape", [shape], ["large"], value=value)
    else:
        _add(model, "Expand", [_constant(model, rng, [0.0], np.float32), shape], ["large"])
    _add(model, "ReduceSum", ["large"], ["sum"], keepdims=0)
    _add(model, "Add", [inner, "sum"], [name])


def _doubling(model: ModelProto, rng: Rng) -> None:
    """Add nodes each of which doubles the size of the last one's output."""
    inner, name = _renamed_output(model, rng)
    last = inner
    for index in range(int(pick(rng, (5, 20, 40)))):
        _add(model, "Concat", [last, last], [f"double{index}"], axis=0)
        last = f"double{index}"
    _add(model, "ReduceSum", [last], ["all"], keepdims=0)
    _add(model, "Add", [inner, "all"], [name])


def _many_nodes(model: ModelProto, rng: Rng) -> None:
    inner, name = _renamed_output(model, rng)
    last = inner
    for index in range(int(pick(rng, (100, 1000, 1000, 10_000, 200_000)))):
        _add(model, "Relu", [last], [f"one{index}"])
        last = f"one{index}"
    _add(model, "Identity", [last], [name])


def _many_weights(model: ModelProto, rng: Rng) -> None:
    for index in range(int(pick(rng, (100, 10_000)))):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), f"more{index}"))


_CHANGES: tuple[Callable[[ModelProto, Rng], None], ...] = (
    _size, _size, _element_type, _no_type, _other_name, _more_outputs, _fewer_values, _versions, _domain,
    _beside_the_graph, _operation, _operation, _attribute, _attribute, _new_attribute, _rewired, _rewired,
    _other_inputs, _node_gone, _node_twice, _loop, _weight_sizes, _weight_type, _weight_data,
    _weight_values, _weight_values, _weight_elsewhere, _rows, _rows, _rows, _cast, _another_output,
    _large_constant, _doubling, _many_nodes, _many_weights,
)  # fmt: skip
