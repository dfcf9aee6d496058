"""The exported graphs: their contract, and that they carry nothing else."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from galip_export import OPSET, export_generator, export_text_encoder
from galip_export.check import check_graph, nearest_index
from galip_export.rewrites import REWRITES
from galip_export.trace import dimensions
from galip_runtime import QualityGateFailed, UsageError
from galip_runtime.bundle.manifest import graph_contract
from onnx import helper, numpy_helper

from galip.presets import preset


@pytest.fixture(scope="module")
def protos(tiny_export):
    return {graph: onnx.load(tiny_export.bundle / f"{graph}.onnx") for graph in ("text_encoder", "generator")}


def check(proto, name):
    check_graph(proto, name, *graph_contract(dimensions(preset("tiny")), name), OPSET)


def declared(values):
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def operators(proto):
    counts = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def test_the_contract_is_frozen(protos):
    text, generator = protos["text_encoder"], protos["generator"]
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    assert declared(text.graph.input) == [("tokens", int64, ["N", "L"])]
    assert declared(text.graph.output) == [("sentence", float32, ["N", 16])]
    assert declared(generator.graph.input) == [
        ("noise", float32, ["N", 8]),
        ("sentence", float32, ["N", 16]),
    ]
    assert declared(generator.graph.output) == [("image", float32, ["N", 3, 28, 28])]
    for proto in protos.values():
        assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
        assert proto.ir_version == 8


def test_graphs_pass_the_checker(protos, tiny_export):
    for name, proto in protos.items():
        onnx.checker.check_model(str(tiny_export.bundle / f"{name}.onnx"), full_check=True)
        check(proto, name)


def test_every_weight_is_used_and_in_the_file(protos):
    for proto in protos.values():
        used = {name for node in proto.graph.node for name in node.input}
        weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        assert weights.keys() <= used
        assert not any(tensor.external_data for tensor in weights.values())
        assert not any("conv1" in name and name.startswith("clip_vit") for name in weights)
        numbers = [tensor.data_type for tensor in weights.values()]
        assert set(numbers) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_nothing_tells_of_the_machine(tiny_export):
    for name in ("text_encoder.onnx", "generator.onnx"):
        data = (tiny_export.bundle / name).read_bytes()
        for word in (b".py", b"File ", b"stack_trace", b"pkg.", b"galip.model", b"/home", b"/root", b"/tmp"):
            assert word not in data, word


def test_no_shapes_are_computed_that_are_known(protos):
    """Only the length of the captions comes from an input's shape."""
    text, generator = operators(protos["text_encoder"]), operators(protos["generator"])
    assert text["Shape"] <= 2
    assert text["Cast"] == 1  # of the tokens, to find each caption's end
    assert not {"Shape", "Expand", "Cast"} & generator.keys()
    assert not {"Tile", "Where", "If", "Loop", "Constant", "ConstantOfShape", "Identity"} & (
        text.keys() | generator.keys()
    )
    for proto in protos.values():
        constants = {tensor.name for tensor in proto.graph.initializer}
        reshapes = [node for node in proto.graph.node if node.op_type == "Reshape"]
        assert reshapes
        assert all(node.input[1] in constants for node in reshapes)


@pytest.mark.parametrize("rewrites", REWRITES)
def test_gamma_and_beta_stay_one_number_a_channel(tiny_model, traced_graphs, rewrites):
    graph = traced_graphs.generator(tiny_model, rewrites).graph
    shapes = {name: shape for name, _, shape in declared(graph.value_info)}
    affine = [
        node
        for node in graph.node
        if node.op_type in ("Mul", "Add")
        and any(len(shapes.get(name, ())) == 4 and shapes[name][2:] == [1, 1] for name in node.input)
    ]
    config = tiny_model.config.generator
    assert len(affine) == 2 * 2 * 2 * (config.fusion_blocks + len(config.sizes))  # Mul and Add, 2 a DFBlock


def test_nothing_is_rewritten_unless_wanted(tiny_model, traced_graphs, protos):
    plain, exact = operators(traced_graphs.generator(tiny_model, "none")), operators(protos["generator"])
    assert "DepthToSpace" not in plain
    assert exact["DepthToSpace"] == 1  # 8 to 16
    assert exact["Gemm"] < plain["Gemm"] // 4
    with pytest.raises(UsageError, match="all"):
        export_generator(tiny_model, "all")


def test_every_resize_is_nearest_asymmetric_and_floor(protos):
    graph = protos["generator"].graph
    shapes = {name: shape for name, _, shape in declared(graph.value_info)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    sizes = set()
    for node in graph.node:
        if node.op_type == "Resize":
            attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
            assert numpy_helper.to_array(weights[node.input[2]]).tolist()[:2] == [1, 1]
            sizes.add((shapes[node.input[0]][2], shapes[node.output[0]][2]))
    assert sizes == {(7, 8), (8, 16), (16, 28)}


@pytest.mark.parametrize(("size", "out"), [(7, 8), (8, 16), (16, 28), (128, 224), (64, 96), (20, 22)])
def test_nearest_in_onnxruntime_is_pytorch_s(size, out):
    scales = numpy_helper.from_array(np.array([1, 1, out / size, out / size], np.float32), "scales")
    node = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, side, side])
        for name, side in (("x", size), ("y", out))
    ]
    graph = helper.make_graph([node], "resize", values[:1], values[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    picture = np.arange(2 * size * size, dtype=np.float32).reshape(2, 1, size, size)
    (ours,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": picture})
    torchs = F.interpolate(torch.from_numpy(picture), size=(out, out), mode="nearest").numpy()
    index = nearest_index(size, out)
    np.testing.assert_array_equal(torchs, picture[:, :, index][:, :, :, index])
    np.testing.assert_array_equal(ours, torchs)


def spoil_resize(attribute, value):
    def spoil(proto):
        node = next(node for node in proto.graph.node if node.op_type == "Resize")
        kept = [entry for entry in node.attribute if entry.name != attribute]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(attribute, value)])

    return spoil


def spoil_scales(proto):
    name = next(node.input[2] for node in reversed(proto.graph.node) if node.op_type == "Resize")
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    factors = numpy_helper.to_array(tensor).copy()
    factors[2:] *= np.float32(1.001)
    tensor.CopyFrom(numpy_helper.from_array(factors, name))


def add_unused_weight(proto):
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "conv1.weight"))


def add_dead_node(proto):
    proto.graph.node.insert(0, helper.make_node("Relu", ["noise"], ["nowhere"], name="dead"))


def add_constant_node(proto):
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "to_rgb.bias")
    tensor.name = "bias"
    proto.graph.node.insert(0, helper.make_node("Neg", ["bias"], ["to_rgb.bias"], name="negated"))


def add_stack_trace(proto):
    proto.graph.node[3].metadata_props.add(key="stack_trace", value="File")


def fix_the_batch(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def rename_the_output(proto):
    for node in proto.graph.node:
        node.output[:] = ["pixels" if name == "image" else name for name in node.output]
    proto.graph.output[0].name = "pixels"


@pytest.mark.parametrize(
    ("spoil", "offence"),
    [
        (spoil_resize("nearest_mode", "round_prefer_floor"), "nearest_mode"),
        (spoil_resize("coordinate_transformation_mode", "half_pixel"), "coordinate_transformation_mode"),
        (spoil_resize("mode", "linear"), "mode"),
        (spoil_scales, "16.*28"),
        (add_unused_weight, "conv1.weight"),
        (add_dead_node, "dead"),
        (add_constant_node, "negated"),
        (add_stack_trace, "metadata"),
        (fix_the_batch, r"noise.*\(2, 8\)"),
        (rename_the_output, "pixels"),
    ],
)
def test_a_graph_that_is_otherwise_is_refused(protos, spoil, offence):
    proto = copy.deepcopy(protos["generator"])
    spoil(proto)
    with pytest.raises(QualityGateFailed, match=offence):
        check(proto, "generator")


@pytest.mark.parametrize("generator", [{"use_clip": False}, {"prompt_layers": ()}], ids=str)
def test_ablations_export(generator, small_model):
    model = small_model(**generator)
    session = onnxruntime.InferenceSession(export_generator(model).SerializeToString())
    for batch in (1, 3):
        noise, sentence = torch.randn(batch, 8), torch.randn(batch, 16)
        (ours,) = session.run(None, {"noise": noise.numpy(), "sentence": sentence.numpy()})
        with torch.inference_mode():
            reference = model.generator(noise, sentence)
        assert np.abs(ours - reference.numpy()).max() < 1e-4 * reference.std()


def test_no_text_tower(small_model):
    model = small_model()
    model.text = None
    with pytest.raises(UsageError, match="--clip"):
        export_text_encoder(model)


def test_captions_of_any_length(protos, tiny_model):
    session = onnxruntime.InferenceSession(protos["text_encoder"].SerializeToString())
    for batch, length in ((1, 1), (1, 16), (3, 2), (5, 9)):
        tokens = torch.randint(0, 500, (batch, length))
        tokens[:, -1] = tiny_model.config.clip.text.vocab_size - 1
        (ours,) = session.run(None, {"tokens": tokens.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(ours, tiny_model.text(tokens).numpy(), atol=1e-5)
