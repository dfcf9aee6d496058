"""Forged graphs that would take hours or all memory, in bundles with the right hashes: refused at once."""

import subprocess
import sys

import galip_runtime
import numpy as np
import onnx
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused
from galip_runtime.bundle.manifest import read_manifest
from onnx import TensorProto, helper, numpy_helper
from stub_bundle import relist, text_encoder

PEAK_MEMORY = """
import sys
import galip_runtime
try:
    galip_runtime.load(sys.argv[1], device=sys.argv[2]).generate("red", 1)
except galip_runtime.FileRefused:
    # getrusage's peak would include the process that started this one
    (peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    print(peak.split()[1])  # kB
"""


def rewrite(bundle, graph, change):
    path = bundle / f"{graph}.onnx"
    model = onnx.load_from_string(path.read_bytes())
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    relist(bundle, path.name)


def with_nodes(*nodes, **constants):
    """Return a change of a graph: `nodes` compute `image` from `inner`, the former `image`."""

    def change(graph):
        next(node for node in graph.node if node.output[0] == "image").output[0] = "inner"
        graph.node.extend(nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.array(value), name) for name, value in constants.items()
        )

    return change


def chain(graph):
    """200,000 nodes."""
    next(node for node in graph.node if node.output[0] == "image").output[0] = "n0"
    graph.node.extend(helper.make_node("Identity", [f"n{i}"], [f"n{i + 1}"]) for i in range(200_000))
    graph.node.append(helper.make_node("Identity", ["n200000"], ["image"]))


def claimed(graph):
    graph.initializer.append(
        TensorProto(name="claimed", dims=[40_000, 40_000], data_type=1, raw_data=b"1234")
    )


def with_sum(constant):
    """Return nodes that add the sum of `constant` to the picture."""
    return (
        helper.make_node("ReduceSum", [constant], ["sum"], keepdims=0),
        helper.make_node("Add", ["inner", "sum"], ["image"]),
    )


def doubled(graph):
    """A constant of 8 bytes, doubled 30 times."""
    nodes = [helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(30)]
    with_nodes(*nodes, *with_sum("c30"), c0=np.zeros(2, np.float32))(graph)


def growing(graph):
    """A picture, doubled 30 times and cut to its first rows."""
    nodes = [helper.make_node("Concat", [f"p{i}", f"p{i}"], [f"p{i + 1}"], axis=2) for i in range(30)]
    first = helper.make_node("Identity", ["inner"], ["p0"])
    last = helper.make_node("Slice", ["p30", "zero", "eight", "axis"], ["image"])
    with_nodes(first, *nodes, last, zero=[0], eight=[8], axis=[2])(graph)


def enlarged(graph):
    """A picture of 8 by 8 pixels, four times enlarged by 16."""
    nodes = [helper.make_node("Resize", [f"p{i}", "", "scales"], [f"p{i + 1}"]) for i in range(4)]
    first = helper.make_node("Identity", ["inner"], ["p0"])
    last = helper.make_node("Slice", ["p4", "zero", "eight", "axes"], ["image"])
    scales = np.array([1, 1, 16, 16], np.float32)
    with_nodes(first, *nodes, last, zero=[0, 0], eight=[8, 8], axes=[2, 3], scales=scales)(graph)


def squared(graph):
    """N pictures by N by N …, reduced to N again: memory grows as a power of the batch."""
    nodes = [helper.make_node("Unsqueeze", [f"p{i}", "zero"], [f"u{i}"]) for i in range(6)]
    nodes += [
        helper.make_node("Transpose", [f"u{i}"], [f"t{i}"], perm=[1, 0, *range(2, i + 5)]) for i in range(6)
    ]
    nodes += [helper.make_node("Add", [f"u{i}", f"t{i}"], [f"p{i + 1}"]) for i in range(6)]
    nodes = [node for index in range(6) for node in nodes[index::6]]
    first = helper.make_node("Identity", ["inner"], ["p0"])
    last = helper.make_node("ReduceMean", ["p6"], ["image"], axes=list(range(1, 7)), keepdims=0)
    with_nodes(first, *nodes, last, zero=[0])(graph)


COLUMN = np.zeros((40_000, 1), np.float32)
FORGERIES = {
    "growing": growing,
    "enlarged": enlarged,
    "squared": squared,
    "outer product of a picture": with_nodes(
        helper.make_node("Flatten", ["inner"], ["flat"]),
        helper.make_node("Mul", ["flat", "column"], ["large"]),
        helper.make_node("MatMul", ["large", "wide"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["inner", "most"], ["image"]),
        column=np.zeros((40_000, 1), np.float32),
        wide=np.zeros((3 * 8 * 8, 40_000), np.float32),
    ),
    "a size by a wrapped number": with_nodes(
        helper.make_node("Cast", ["minus"], ["wrapped"], to=TensorProto.UINT32),
        helper.make_node("Cast", ["wrapped"], ["size"], to=TensorProto.INT64),
        helper.make_node("Expand", ["inner", "size"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["inner", "most"], ["image"]),
        minus=[-1, 1, 1, 1, 1],
    ),
    "the wrong order": with_nodes(
        helper.make_node("Relu", ["later"], ["image"]), helper.make_node("Relu", ["inner"], ["later"])
    ),
    "nodes": chain,
    "claimed": claimed,
    "doubled": doubled,
    "ConstantOfShape": with_nodes(
        helper.make_node("ConstantOfShape", ["sizes"], ["huge"]), *with_sum("huge"), sizes=[40_000, 40_000]
    ),
    "Expand": with_nodes(
        helper.make_node("Expand", ["inner", "sizes"], ["image"]), sizes=[40_000, 3, 8, 8_000]
    ),
    "computed": with_nodes(
        helper.make_node("Shape", ["inner"], ["sizes"]),
        helper.make_node("Mul", ["sizes", "sizes"], ["more"]),
        helper.make_node("Expand", ["inner", "more"], ["image"]),
    ),
    "Tile": with_nodes(helper.make_node("Tile", ["inner", "times"], ["image"]), times=[1, 1, 20_000, 1_000]),
    "Pad": with_nodes(
        helper.make_node("Pad", ["inner", "pads"], ["image"]), pads=[0, 0, 0, 0, 0, 0, 0, 10**9]
    ),
    "Resize": with_nodes(
        helper.make_node("Resize", ["inner", "", "scales"], ["image"]),
        scales=np.array([1, 1, 5_000, 5_000], np.float32),
    ),
    "outer product": with_nodes(
        helper.make_node("MatMul", ["column", "row"], ["huge"]),
        *with_sum("huge"),
        column=COLUMN,
        row=COLUMN.T,
    ),
    "broadcast": with_nodes(
        helper.make_node("Add", ["column", "row"], ["huge"]), *with_sum("huge"), column=COLUMN, row=COLUMN.T
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_refused_before_it_is_compiled(bundle, kind):
    rewrite(bundle, "generator", FORGERIES[kind])
    with expect_error(FileRefused, bundle / "generator.onnx"):
        galip_runtime.load(bundle, device="cpu")


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("kind", ["nodes", "ConstantOfShape", "broadcast"])
def test_refusing_a_forgery_takes_little_memory(bundle, device, kind):
    rewrite(bundle, "generator", FORGERIES[kind])
    process = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, str(bundle), device], capture_output=True, text=True, timeout=120
    )
    assert int(process.stdout) < 1_000_000


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_table_smaller_than_the_vocabulary(bundle, device):
    dimensions = read_manifest(bundle).dimensions
    (bundle / "text_encoder.onnx").write_bytes(text_encoder(dimensions, 521))
    relist(bundle, "text_encoder.onnx")
    with expect_error(FileRefused, bundle / "text_encoder.onnx", 521, 522):
        galip_runtime.load(bundle, device=device)


def test_a_computed_table(bundle):
    def change(graph):
        graph.node[0].input[0] = "computed"
        graph.node.insert(0, helper.make_node("Add", ["table", "table"], ["computed"]))

    rewrite(bundle, "text_encoder", change)
    with expect_error(FileRefused, bundle / "text_encoder.onnx"):
        galip_runtime.load(bundle, device="cpu")
