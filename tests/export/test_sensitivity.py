"""The MACs of a graph."""

import math

import onnx
from galip_export.sensitivity import count_macs
from onnx import TensorProto, helper


def test_macs():
    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "g"], ["m"], name="gemm", transB=1),
        helper.make_node("MatMul", ["m", "p"], ["y"], name="product"),
    ]
    shapes = {"w": (6, 2, 3, 3), "g": (7, 6 * 25), "p": (7, 3)}
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, b"\0" * 4 * math.prod(shape), raw=True)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "g", [value("x", "N", 4, 5, 5)], [value("y", "N", 3)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    assert count_macs(model) == {"conv": 6 * 25 * 2 * 9, "gemm": 7 * 150, "product": 3 * 7}
