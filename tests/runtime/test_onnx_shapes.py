"""Inferred tensor sizes are those of a real run."""

import contextlib
import math

import numpy as np
import onnx
import onnxruntime
import pytest
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.onnx_memory import infer_sizes
from galip_runtime.bundle.onnx_shapes import OPERATORS, TensorInfo, infer_shapes
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

X = (2, 12, 6, 8)
F = np.float32


def case(operator, *constants, x=X, outputs=1, **attributes):
    return operator, x, constants, outputs, attributes


CASES = [
    *(
        case(name)
        for name in [
            "Abs",
            "Erf",
            "Exp",
            "GlobalAveragePool",
            "Identity",
            "LeakyRelu",
            "Log",
            "Neg",
            "Reciprocal",
        ]
    ),
    *(
        case(name)
        for name in ["Relu", "Sigmoid", "Softmax", "Sqrt", "Tanh", "Transpose", "Flatten", "Shape", "Gelu"]
    ),
    *(
        case(name, np.ones((6, 1), F))
        for name in ["Add", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mul", "Pow", "Sub"]
    ),
    case("Max", np.ones((6, 1), F), np.ones((3, 1, 1, 1, 1), F)),
    case("Cast", to=TensorProto.INT64),
    case("Clip", np.array(0, F)),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Flatten", axis=0),
    case("Flatten", axis=-1),
    case("Flatten", axis=4),
    case("Shape", start=1, end=-1),
    case("ArgMax"),
    case("ArgMax", axis=-1, keepdims=0),
    *(case("ReduceMax", np.array([1, -1]), keepdims=keep) for keep in (0, 1)),
    case("ReduceMean"),
    case("ReduceSum", np.array([], np.int64), noop_with_empty_axes=1),
    case("ReduceSum", np.array([2])),
    case("BatchNormalization", *[np.ones(12, F)] * 4),
    case("InstanceNormalization", *[np.ones(12, F)] * 2),
    case("LayerNormalization", np.ones(8, F)),
    case("QuantizeLinear", np.array(0.5, F), np.array(3, np.uint8)),
    case("MatMul", np.ones((8, 5), F)),
    case("MatMul", np.ones((3, 1, 12, 8, 5), F)),
    case("Gemm", np.ones((5, 4), F), np.ones(4, F), x=(3, 5)),
    case("Gemm", np.ones((4, 3), F), x=(3, 5), transA=1, transB=1),
    case("Conv", np.ones((5, 12, 3, 3), F)),
    case(
        "Conv", np.ones((5, 12, 3, 2), F), np.ones(5, F), pads=[1, 0, 2, 3], strides=[2, 3], dilations=[2, 1]
    ),
    case("Conv", np.ones((6, 4, 1, 1), F), group=3),
    *(
        case("Conv", np.ones((5, 12, 3, 4), F), auto_pad=pad, strides=[2, 3])
        for pad in ("SAME_UPPER", "VALID")
    ),
    case("AveragePool", kernel_shape=[3, 3], strides=[2, 2]),
    case("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
    case("Concat", np.ones((2, 3, 6, 8), F), axis=1),
    case("Concat", np.ones((2, 12, 6, 1), F), np.ones(X, F), axis=-1),
    case("Reshape", np.array([0, -1, 4])),
    case("Reshape", np.array([24, 48])),
    case("Unsqueeze", np.array([0, -1, 2])),
    case("Squeeze", np.array([1, -1]), x=(2, 1, 3, 1)),
    case("Squeeze", x=(2, 1, 3, 1)),
    case("Slice", np.array([1]), np.array([2**63 - 1]), np.array([1]), np.array([3])),
    case("Slice", np.array([-1, 0]), np.array([-(2**63), -2]), np.array([3, 1]), np.array([-2, 1])),
    case("Slice", np.array([1, 20]), np.array([1, 30])),
    case("Split", axis=1, outputs=4, num_outputs=4),
    case("Split", axis=1, outputs=5, num_outputs=5),
    case("Split", np.array([5, 1, 2]), axis=-1, outputs=3),
    case("DepthToSpace", blocksize=2),
    case("Gather", np.array(3), axis=1),
    case("Gather", np.zeros((5, 2), np.int64), axis=-2),
    case("GatherElements", np.zeros((2, 3, 1, 1), np.int64), axis=1),
    case("GatherND", np.zeros((7, 5, 2), np.int64)),
    case("GatherND", np.zeros((2, 7, 1), np.int64), batch_dims=1),
    case("Expand", np.array([3, 1, 1, 1, 8])),
    case("Pad", np.array([0, 1, 0, 2, 3, 0, 0, -1])),
    case("Pad", np.array([1, 2]), np.array(0, F), np.array([-1])),
    case("Resize", np.array([], F), np.array([1, 1, 2, 2.5], F)),
    case("Resize", np.array([], F), np.array([], F), np.array([2, 12, 3, 7])),
    case("Where", np.ones((2, 1, 1, 1), F), np.ones((1, 8), F)),
    case("And", np.ones((6, 1), bool)),
    case("Not"),
]
UNTESTED = {"Constant", "DequantizeLinear", "GroupNormalization"}
"""Without an input, or of its input's size by definition; onnxruntime's GroupNormalization needs opset 21."""


@pytest.mark.parametrize(("operator", "x", "constants", "outputs", "attributes"), CASES)
def test_sizes_are_those_of_a_run(operator, x, constants, outputs, attributes):
    names = [f"c{index}" for index in range(len(constants))]
    results = [f"y{index}" for index in range(outputs)]
    inputs = ["condition", *names] if operator in ("Where", "Not", "And") else ["x", *names]
    nodes = [helper.make_node("Cast", ["x"], ["condition"], to=TensorProto.BOOL)]
    nodes.append(helper.make_node(operator, inputs, results, **attributes))
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [onnx.ValueInfoProto(name=name) for name in results],
        [numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = [tuple(result.shape) for result in session.run(results, {"x": np.ones(x, F)})]
    known = [
        TensorInfo(x),
        *(
            TensorInfo(array.shape, tuple(array.ravel().tolist()) if array.size < 64 else None)
            for array in constants
        ),
    ]
    assert [tensor.sizes for tensor in infer_shapes(operator, {**attributes}, known, outputs)] == expected


def test_every_operator_has_a_case():
    assert {operator for operator, *_ in CASES} | UNTESTED == OPERATORS


@pytest.mark.parametrize("graph", ["text_encoder", "generator"])
def test_sizes_of_every_tensor_of_a_graph(bundle, graph):
    path = bundle / f"{graph}.onnx"
    inputs = {"tokens": (2, 24)} if graph == "text_encoder" else {"noise": (2, 5), "sentence": (2, 6)}
    file = OnnxFile(path)
    sizes = infer_sizes(file._graph.nodes, file._graph.constants, inputs)
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output]
    own_outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own_outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {name: np.ones(shape, np.int64 if name == "tokens" else F) for name, shape in inputs.items()}
    for name, result in zip(names, session.run(names, feeds), strict=True):
        assert sizes[name] == result.shape, name


@given(
    operator=st.sampled_from(sorted(OPERATORS)),
    attributes=st.dictionaries(
        st.sampled_from(
            [
                "axis",
                "axes",
                "perm",
                "keepdims",
                "group",
                "pads",
                "strides",
                "kernel_shape",
                "start",
                "end",
                "to",
                "blocksize",
            ]
        ),
        st.integers(-(2**63), 2**63 - 1)
        | st.lists(st.integers(-3, 9), max_size=5)
        | st.none()
        | st.text(max_size=3),
    ),
    inputs=st.lists(
        st.none()
        | st.builds(
            TensorInfo,
            st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
            st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(tuple),
        ),
        max_size=4,
    ),
    outputs=st.integers(0, 4),
)
def test_sizes_that_cannot_be_inferred_are_a_value_error(operator, attributes, inputs, outputs):
    with contextlib.suppress(ValueError):
        results = infer_shapes(operator, attributes, inputs, outputs)
        assert len(results) == outputs
        assert all(math.prod(known.sizes) >= 0 for known in results)
