"""Where the time goes on a CPU, and what onnxruntime's options cost."""

import json
import math
import subprocess
import sys

import onnx
import pytest
import torch
from galip_bench import operators, options, rewrites
from galip_export.onnx_export import export_module
from galip_export.rewrites import Rewritten
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from onnx import TensorProto, helper

from galip.checkpoint import load_galip


@pytest.fixture(scope="module")
def measured(tiny_bundle):
    return operators.measure(tiny_bundle, rounds=2, threads=1)


def test_where_the_time_goes(measured):
    assert list(measured["precisions"]) == ["fp32"]
    found = measured["precisions"]["fp32"]
    assert sum(found["operations"].values()) == pytest.approx(1)
    assert found["operations"]["Convolution"] > 0
    assert list(found["operations"].values()) == sorted(found["operations"].values(), reverse=True)
    assert len(found["seconds"]["samples"]) == 2
    rate = measured["multiply_adds"] / found["seconds"]["median"]
    assert found["multiply_adds_per_second"] == pytest.approx(rate)
    assert 0 < found["share_of_peak"] < 1
    json.dumps(measured, allow_nan=False)


def test_its_table(measured):
    table = operators.table([measured]).splitlines()
    assert table[0] == "| | fp32 |"
    assert any(line.startswith("| time in Convolution | ") for line in table)
    assert "multiply-adds a picture of 28×28" in table[-1]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("kind", "products"), [("Conv", 1024 * 1024 * 9 * 28 * 28), ("MatMul", 2048**3)])
def test_the_machine_s_best(kind, products, precision):
    network, count = operators._peak_network(kind, precision, threads=1)
    assert count == products
    assert network.seconds() > 0


def test_multiply_adds():
    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["m"], transB=1),
        helper.make_node("MatMul", ["m", "p"], ["y"]),
    ]
    shapes = {"w": (6, 2, 3, 3), "g": (7, 6 * 25), "p": (7, 3)}
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, b"\0" * 4 * math.prod(shape), raw=True)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "g", [value("x", "N", 4, 5, 5)], [value("y", "N", 3)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    assert operators.multiply_adds(model) == 6 * 25 * 2 * 9 + 7 * 150 + 3 * 7


def test_options(tiny_bundle):
    result = options.measure(tiny_bundle, rounds=2, threads=1)
    assert set(result["seconds"]) == set(options.CHANGES)
    assert all(len(samples) == 2 and min(samples) > 0 for samples in result["seconds"].values())
    table = options.table([result, result]).splitlines()
    assert table[0] == "| | 28 pixels | 28 pixels |"
    assert table[2] == "| as used | 1 | 1 |"
    assert len(table) == 2 + len(options.CHANGES)


def test_rewrites(tiny_checkpoint):
    result = rewrites.measure(tiny_checkpoint, rounds=2, threads=1)
    for of_backend in result["seconds"].values():
        assert list(of_backend) == list(rewrites.LEFT_OUT)
        for samples in of_backend.values():
            assert {name: len(each) for name, each in samples.items()} == {"with": 2, "without": 2}
    assert result["model"]["name"] == tiny_checkpoint.name
    table = rewrites.table([result]).splitlines()
    assert table[0] == "| without | 28 pixels, onnxruntime | 28 pixels, openvino |"
    assert len(table) == 2 + len(rewrites.LEFT_OUT)


@pytest.mark.parametrize("name", rewrites.LEFT_OUT)
def test_what_is_left_out_is_another_graph_of_equal_pictures(tiny_checkpoint, name):
    model = load_galip(tiny_checkpoint)
    whole, less = Rewritten(model.generator), Rewritten(model.generator)
    rewrites.LEFT_OUT[name](less, model.generator)
    whole, less = (export_module(model.config, each.eval()) for each in (whole, less))
    assert (
        operators.multiply_adds(less) > operators.multiply_adds(whole) or "folded" in name or "once" in name
    )
    assert len(less.graph.node) != len(whole.graph.node)


def test_a_rewrite_that_changes_the_picture_has_no_time(tiny_checkpoint, monkeypatch):
    def brighter(rewritten, generator):
        rewritten.to_rgb = torch.nn.Sequential(rewritten.to_rgb, torch.nn.Hardtanh(0.01, 9))

    monkeypatch.setattr(rewrites, "LEFT_OUT", {"truth": brighter})
    with pytest.raises(QualityGateFailed, match="another one"):
        rewrites.measure(tiny_checkpoint, rounds=1, threads=1)


@pytest.mark.parametrize("module", ["operators", "options", "rewrites"])
def test_the_commands(tiny_bundle, tiny_checkpoint, tmp_path, module):
    call = [sys.executable, "-m", f"galip_bench.{module}"]
    subject = tiny_checkpoint if module == "rewrites" else tiny_bundle
    done = subprocess.run(
        [*call, subject, "--out", tmp_path / "a.json", "--rounds", "1", "--threads", "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("| ")
    assert json.loads((tmp_path / "a.json").read_text())["benchmark"] == module
    none = subprocess.run(
        [*call, subject, "--out", tmp_path / "b.json", "--rounds", "0"], capture_output=True
    )
    assert none.returncode == UsageError.exit_code
    done = subprocess.run([*call, tmp_path, "--out", tmp_path / "b.json"], capture_output=True, text=True)
    assert done.returncode == FileRefused.exit_code
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "b.json").exists()


def test_a_bundle_without_fp32(tiny_checkpoint, tmp_path):
    from galip_export import export_bundle

    export_bundle(tiny_checkpoint, tmp_path / "bundle", precisions="w16a32")
    for module in (operators, options):
        with pytest.raises(UsageError, match="no fp32 generator"):
            module.measure(tmp_path / "bundle", rounds=1)
