"""That onnxruntime's CUDA provider has a kernel for every node, so that none runs on the CPU.

tests/provider asks the provider itself, where it is available. What it has is in onnxruntime's
docs/OperatorKernels.md; here, for opset 18, are the operators that bundles' graphs are made of, with the
types of their first input.
"""

import onnx
import pytest
from galip_export.fp16_storage import store_weights_as_fp16
from galip_export.mixed_precision import to_fp16
from galip_runtime.backends.pixels import with_pixels
from galip_runtime.bundle.manifest import GRAPHS, read_manifest
from onnx import TensorProto, shape_inference

FLOATS = {"float", "float16"}
ANY = {*FLOATS, "int64", "uint8"}
OF_FLOATS = (
    "ArgMax", "Clip", "Conv", "DepthToSpace", "Gemm", "LayerNormalization", "LeakyRelu", "MatMul", "Pad",
    "Relu", "Resize", "Round", "Sigmoid", "Softmax",
)  # fmt: skip
OF_ANY = (
    "Add", "Cast", "Concat", "Expand", "Gather", "GatherElements", "Mul", "ReduceSum", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
)  # fmt: skip
KERNELS = {**dict.fromkeys(OF_FLOATS, FLOATS), **dict.fromkeys(OF_ANY, ANY)}
ON_THE_HOST = {("Slice", 1), ("Slice", 2), ("Slice", 3), ("Slice", 4), ("Reshape", 1), ("Expand", 1)}
"""inputs that CUDA's kernels take from the CPU's memory, where `Shape` leaves its result"""


def problems(model):
    """Nodes that CUDA has no kernel for, and numbers that would be fetched from the GPU or brought to it."""
    graph = shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    on_the_host = {name for node in graph.node if node.op_type == "Shape" for name in node.output}
    found = []
    for node in graph.node:
        kind = TensorProto.DataType.Name(types[node.input[0]]).lower()
        if kind not in KERNELS.get(node.op_type, ()):
            found.append(f"{node.name} of {kind}")
        for place, name in enumerate(node.input):
            if name in on_the_host and (node.op_type, place) not in ON_THE_HOST:
                found.append(f"{node.name} takes {name} from the CPU")
    return found


@pytest.mark.parametrize("stored", ["fp32", "fp16", "w16a32"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_node_has_a_kernel(tiny_export, graph, stored):
    spec = read_manifest(tiny_export.bundle).graphs[graph]["fp32"]
    model = onnx.load(tiny_export.bundle / spec.file)
    if graph == "generator":
        model = onnx.load_from_string(with_pixels(model.SerializeToString(), spec.outputs[0]))
    convert = {"fp32": lambda model: model, "fp16": to_fp16, "w16a32": store_weights_as_fp16}[stored]
    assert problems(convert(model)) == []


def test_what_has_none_is_found(tiny_export):
    model = onnx.load(tiny_export.bundle / "text_encoder.onnx")
    (cast,) = [node for node in model.graph.node if node.op_type == "Cast"]
    (argmax,) = [node for node in model.graph.node if node.op_type == "ArgMax"]
    argmax.input[0] = cast.input[0]
    shape = next(node for node in model.graph.node if node.op_type == "Shape")
    model.graph.node.add(op_type="Concat", name="both", input=[shape.output[0]] * 2, output=["both"])
    assert problems(model) == [f"{argmax.name} of int64", *[f"both takes {shape.output[0]} from the CPU"] * 2]
