"""Weights stored as fp16: what is stored, and what a backend makes of it as it loads the graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from galip_export.fp16_storage import store_weights_as_fp16
from galip_export.rewrites import sub_pixel_kernels
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.onnx_memory import memory_limit
from onnx import TensorProto, helper, numpy_helper

KERNEL = "blocks.1.doubling.weight"
PHASES = [f"blocks.1.doubling.phases.{number}.weight" for number in range(4)]


@pytest.fixture(scope="module")
def generator(tiny_model, traced_graphs):
    return traced_graphs.generator(tiny_model)


def weights(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def with_weights(proto, **changed):
    """Return `proto` with other values of some weights."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return result


def with_kernel(proto, kernel):
    phases = zip(PHASES, sub_pixel_kernels(kernel), strict=True)
    return with_weights(proto, **{name: phase.numpy() for name, phase in phases})


def computed(proto, names):
    """The tensors `names`, which nodes of `proto` compute from weights alone."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {each.name: np.zeros((1, each.shape[1]), np.float32) for each in session.get_inputs()}
    return session.run(names, inputs)


def optimised(proto, path):
    """The operators that onnxruntime runs, in order."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that the file is for this machine only
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def test_large_ones_are_stored_as_fp16_and_cast(generator):
    before = generator.SerializeToString(deterministic=True)
    result = store_weights_as_fp16(generator)
    assert generator.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    stored, plain = weights(result), weights(generator)
    assert set(PHASES) <= set(plain)
    for name, weight in plain.items():
        if name in PHASES:
            assert not {name, f"{name}.fp16"} & set(stored)
        elif weight.dtype == np.float32 and weight.size >= 1024:
            assert (stored[f"{name}.fp16"] == weight.astype(np.float16)).all()
        else:
            assert (stored[name] == weight).all()
    casts = [node for node in result.graph.node if node.op_type == "Cast"]
    assert len(casts) == sum(array.dtype == np.float16 for array in stored.values()) > 0


@pytest.mark.parametrize("trained_in", [torch.float32, torch.float16])
def test_a_sub_pixel_convolution_is_stored_as_its_3x3_kernel(tiny_model, generator, trained_in):
    kernel = tiny_model.generator.blocks[1].conv1.weight.detach()
    if trained_in == torch.float16:
        kernel = kernel.half().float()
        generator = with_kernel(generator, kernel)
    result = store_weights_as_fp16(generator)
    stored = weights(result)[f"{KERNEL}.fp16"]
    assert stored.shape == kernel.shape
    if trained_in == torch.float16:
        assert (stored == kernel.numpy()).all()
    else:
        np.testing.assert_allclose(stored, kernel, rtol=2**-11, atol=2e-6)
    expected = sub_pixel_kernels(torch.from_numpy(stored.astype(np.float32)))
    for found, phase in zip(computed(result, PHASES), expected, strict=True):
        assert (found == phase.numpy()).all()


def test_what_fp16_cannot_hold_stays(generator):
    name, value = max(weights(generator).items(), key=lambda each: each[1].size)
    value = value.copy()
    value.flat[0] = 1e5
    stored = weights(store_weights_as_fp16(with_weights(generator, **{name: value})))
    assert (stored[name] == value).all()


def test_phases_of_a_kernel_that_fp16_cannot_hold_stay(generator):
    kernel = torch.zeros(12, 16, 3, 3)
    kernel[0, 0, 1, 1], kernel[0, 0, 1, 0] = 1e5, -1e5  # 0 together
    large = with_kernel(generator, kernel)
    stored = weights(store_weights_as_fp16(large))
    assert f"{KERNEL}.fp16" not in stored
    for name in PHASES:
        assert (stored[name] == weights(large)[name]).all()


def test_phases_of_no_kernel(generator):
    other = {PHASES[2]: weights(generator)[PHASES[2]] + 1}
    with pytest.raises(ValueError, match="do not come from one 3x3 kernel"):
        store_weights_as_fp16(with_weights(generator, **other))


def test_nothing_is_left_to_compute_when_the_graph_runs(generator, tmp_path):
    stored = store_weights_as_fp16(generator)
    assert optimised(stored, tmp_path / "stored.onnx") == optimised(generator, tmp_path / "plain.onnx")


def test_the_largest_convolutions_are_within_what_the_runtime_computes_from_weights(tmp_path):
    """A graph of nothing else, beyond the numbers that any graph may have."""
    channels = 800
    kernel = torch.randn(channels, channels, 3, 3)
    tensors = [
        numpy_helper.from_array(phase.numpy(), name)
        for name, phase in zip(PHASES, sub_pixel_kernels(kernel), strict=True)
    ]
    names = ["x", *(f"y{number}" for number in range(4))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 2, 2]) for name in names]
    nodes = [
        helper.make_node("Conv", ["x", phase], [name], pads=[0, 0, 1, 1])
        for phase, name in zip(PHASES, names[1:], strict=True)
    ]
    graph = helper.make_graph(nodes, "phases", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(store_weights_as_fp16(model), tmp_path / "phases.onnx")
    OnnxFile(tmp_path / "phases.onnx").check_memory({"x": (1, channels, 2, 2)}, memory_limit(2, 2))
