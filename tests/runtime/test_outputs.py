"""The output of every run has the shape that the manifest states: forged graphs have right hashes, too."""

import os
import shutil

import galip_runtime
import numpy as np
import onnx
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused
from onnx import helper, numpy_helper
from stub_bundle import relist


def forge(bundle, graph, output, *nodes, **constants):
    """Let `nodes` compute the output from `inner`, the former output."""
    path = bundle / f"{graph}.onnx"
    model = onnx.load_from_string(path.read_bytes())
    for node in model.graph.node:
        if node.output[0] == output:
            node.output[0] = "inner"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(values), name) for name, values in constants.items()
    )
    path.write_bytes(model.SerializeToString())
    relist(bundle, path.name)


def twice_as_many_rows(output):
    return [helper.make_node("Concat", ["inner", "inner"], [output], axis=0)], {}


def no_rows(output):
    return [helper.make_node("Slice", ["inner", "zero", "zero", "zero"], [output])], {"zero": [0]}


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("rows", [twice_as_many_rows, no_rows])
@pytest.mark.parametrize(("graph", "output"), [("generator", "image"), ("text_encoder", "sentence")])
def test_another_number_of_rows_is_refused(bundle, device, rows, graph, output):
    nodes, constants = rows(output)
    forge(bundle, graph, output, *nodes, **constants)
    with expect_error(FileRefused, f"{graph}.onnx"):
        galip_runtime.load(bundle, device=device).generate(["the red", "red"], [7, 8])


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_folder_whose_name_is_not_utf_8(bundle, device):
    folder = bundle.with_name(os.fsdecode(b"caf\xe9"))
    try:
        shutil.copytree(bundle, folder)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    picture = galip_runtime.load(folder, device=device).generate("red", 7)
    assert (picture == galip_runtime.load(bundle, device=device).generate("red", 7)).all()
