"""Generation blocks in a graph: found by their structure, with their weights; anything else is refused."""

import numpy as np
import onnx
import pytest
from block_bundle import FORMS, BlockGraph, phases_of
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.sub_pixel import kernel_of_phases, phases_of_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

INPUTS = {"noise": (1, 5), "sentence": (1, 6)}


def graph_file(path, change=lambda model: None, **options):
    model = onnx.load_from_string(BlockGraph(**options).build())
    change(model)
    onnx.save(model, path)
    return OnnxFile(path)


def stored(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("form", FORMS)
def test_sizes_names_and_weights(tmp_path, form):
    path = tmp_path / "generator.onnx"
    file, arrays = graph_file(path, form=form), stored(path)
    found = file.generation_blocks(INPUTS)
    assert found.features == "features"
    assert [(block.in_shape, block.out_shape) for block in found.blocks] == [
        ((6, 4, 4), (6, 5, 5)),
        ((6, 5, 5), (5, 10, 10)),
    ]
    assert found.affines == tuple(f"affine{index}" for index in range(16))
    first, second = found.blocks
    assert first.shortcut is None
    for convolution, name in ((first.conv1, "blocks.0.conv1"), (second.conv2, "blocks.1.conv2")):
        weight, bias = file.read_convolution(convolution)
        np.testing.assert_array_equal(weight, arrays[f"{name}.weight"])
        np.testing.assert_array_equal(bias, arrays[f"{name}.bias"])
    kernel, _ = file.read_convolution(second.conv1)
    assert kernel.shape == (5, 6, 3, 3)
    assert kernel.dtype == np.float32
    if form == "one kernel":
        np.testing.assert_array_equal(kernel, arrays["blocks.1.weight.fp16"].astype(np.float32))
    if form == "phases":
        for number, phase in enumerate(phases_of(kernel)):
            np.testing.assert_allclose(phase, arrays[f"blocks.1.phases.{number}.weight"], atol=1e-6)


def node(model, operator, index=0):
    return [node for node in model.graph.node if node.op_type == operator][index]


def attribute(operator, name, value, index=0):
    def change(model):
        found = node(model, operator, index)
        kept = [given for given in found.attribute if given.name != name]
        del found.attribute[:]
        found.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return change


def rewire(operator, position, name, index=0):
    def change(model):
        node(model, operator, index).input[position] = name

    return change


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (attribute("LeakyRelu", "alpha", 0.3, -1), {}, "slope 0.3"),
        (attribute("Conv", "pads", [0, 0, 0, 0], -1), {}, "not one of a generation block"),
        (attribute("Conv", "dilations", [2, 2], -1), {}, "not one of a generation block"),
        (attribute("DepthToSpace", "mode", "DCR"), {}, "four phases"),
        (attribute("Resize", "mode", "linear", -1), {"form": "resized"}, "not nearest"),
        (attribute("Resize", "nearest_mode", "ceil", -1), {"form": "resized"}, "not nearest"),
        (rewire("Conv", 0, "blocks.0/sum", 5), {}, "different inputs"),
    ],
)
def test_another_last_block(tmp_path, change, options, why):
    """What is not the model's stays onnxruntime's: with the last block, all are."""
    file = graph_file(tmp_path / "generator.onnx", change, **options)
    with pytest.raises(ValueError, match=why):
        file.generation_blocks(INPUTS)


def test_an_earlier_block_that_is_another(tmp_path):
    """Only those after it are found."""
    file = graph_file(tmp_path / "generator.onnx", attribute("LeakyRelu", "alpha", 0.3))
    found = file.generation_blocks(INPUTS)
    assert found.features == "blocks.0/sum"
    assert len(found.blocks) == 1


def test_phases_that_were_rounded_one_by_one(tmp_path):
    file = graph_file(tmp_path / "generator.onnx", rounded=True)
    with pytest.raises(ValueError, match="export the bundle again"):
        file.read_convolution(file.generation_blocks(INPUTS).blocks[1].conv1)


@given(st.integers(0, 2**32), st.floats(-20, 20), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_a_kernel_and_its_phases(seed, exponent, outs, ins):
    random = np.random.default_rng(seed)
    kernel = np.float32(2.0**exponent) * random.standard_normal((outs, ins, 3, 3), np.float32)
    phases = phases_of_kernel(kernel)
    for phase, expected in zip(phases, phases_of(kernel), strict=True):
        np.testing.assert_allclose(phase, expected, atol=1e-6 * np.abs(kernel).max(), rtol=0)
    np.testing.assert_allclose(kernel_of_phases(phases), kernel, atol=1e-6 * np.abs(kernel).max(), rtol=0)
    phases[1] = phases[1] * np.float32(1.001)
    with pytest.raises(ValueError, match="one 3x3 kernel"):
        kernel_of_phases(phases)


def test_numbers_that_are_not_finite_are_no_phases():
    phases = phases_of_kernel(np.ones((1, 1, 3, 3), np.float32))
    phases[2][0, 0, 0, 0] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="one 3x3 kernel"):
        kernel_of_phases(phases)
