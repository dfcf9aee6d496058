"""fp16: which type every tensor has, what a GPU would make of it, and what stays in fp32."""

import json

import numpy as np
import onnx
import pytest
import torch
from galip_export import calibration, devices, export_bundle, mixed_precision, precisions
from galip_export.calibration import Samples
from galip_export.comparison import picture_psnr, row_psnr
from galip_export.emulation import emulated
from galip_export.fp16_storage import LARGEST
from galip_export.mixed_precision import convert_mixed, float_tensors, group_parts, to_fp16
from galip_export.sensitivity import select
from galip_runtime import QualityGateFailed
from galip_runtime.bundle.manifest import CONDITION, read_manifest
from onnx import TensorProto, helper, numpy_helper

from galip.model import Galip
from galip.presets import preset


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Galip(preset("tiny")).eval()


@pytest.fixture(scope="module")
def generator(model, traced_graphs):
    return traced_graphs.generator(model)


@pytest.fixture(scope="module")
def encoder(model, traced_graphs):
    return traced_graphs.text_encoder(model)


def graph_of(nodes, weights=(), inputs=("x",), output="y"):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])

    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights]
    graph = helper.make_graph(nodes, "generator", list(map(value, inputs)), [value(output)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def types(proto):
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    found = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def run(proto, **inputs):
    return calibration.output(proto, inputs)


class Test_to_fp16:
    @pytest.mark.parametrize("name", ["generator", "encoder"])
    def test_nodes_are_in_fp16_and_what_goes_in_and_out_is_not(self, request, name):
        graph = request.getfixturevalue(name)
        before = graph.SerializeToString(deterministic=True)
        result = to_fp16(graph)
        assert graph.SerializeToString(deterministic=True) == before
        onnx.checker.check_model(result, full_check=True)
        of = types(result)
        for value in (*result.graph.input, *result.graph.output):
            assert of[value.name] in (TensorProto.FLOAT, TensorProto.INT64)
        assert [value.name for value in result.graph.input] == [value.name for value in graph.graph.input]
        allowed = {
            name for node in result.graph.node for name in (*node.input, *node.output)
            if node.op_type in ("Cast", "Resize")
        }  # fmt: skip
        floats = {name for name, each in of.items() if each == TensorProto.FLOAT}
        assert floats <= allowed | {value.name for value in graph.graph.input}
        assert result.ByteSize() < 0.6 * graph.ByteSize()

    def test_what_depends_on_the_sentence_is_still_one_tensor_in_fp32(self, generator):
        result = to_fp16(generator)
        assert types(result)[CONDITION] == TensorProto.FLOAT
        readers = [node for node in result.graph.node if CONDITION in node.input]
        assert [node.op_type for node in readers] == ["Cast"]
        reached = {"sentence"}
        for node in result.graph.node:  # they are in order
            if reached & set(node.input):
                reached |= {*node.output} - {CONDITION}
        assert "image" not in reached

    def test_kept_nodes_compute_in_fp32(self):
        nodes = [
            helper.make_node("Mul", ["x", "w"], ["a"], name="first"),
            helper.make_node("Add", ["a", "w"], ["b"], name="second"),
            helper.make_node("Sub", ["b", "x"], ["y"], name="third"),
        ]
        result = to_fp16(graph_of(nodes, [("w", [[0.1, 0.2, 0.3, 0.4]])]), fp32_nodes={"second"})
        onnx.checker.check_model(result, full_check=True)
        of = types(result)
        assert (of["a"], of["a/float"], of["b"], of["b/half"]) == (10, 1, 1, 10)
        assert {tensor.name: tensor.data_type for tensor in result.graph.initializer} == {
            "w": 1,
            "w/half": 10,
        }

    def test_a_weight_that_fp16_does_not_hold_stays(self):
        nodes = [helper.make_node("Mul", ["x", "w"], ["y"], name="only")]
        large = to_fp16(graph_of(nodes, [("w", [[1, 2, 3, 7e4]])]))
        assert [node.op_type for node in large.graph.node] == ["Mul"]
        mask = to_fp16(graph_of(nodes, [("w", [[1, 2, 3, -np.inf]])]))
        assert [node.op_type for node in mask.graph.node] == ["Cast", "Mul", "Cast"]

    def test_scales_of_a_resize_stay(self):
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name="r", mode="nearest")
        result = to_fp16(graph_of([node], [("scales", [1, 1])]))
        onnx.checker.check_model(result, full_check=True)
        assert {tensor.name: tensor.data_type for tensor in result.graph.initializer} == {"scales": 1}


class Test_emulated:
    def test_it_rounds_between_nodes(self):
        nodes = [
            helper.make_node("Add", ["x", "c"], ["a"], name="up"),
            helper.make_node("Sub", ["a", "c"], ["y"], name="down"),
        ]
        graph = to_fp16(graph_of(nodes, [("c", np.full((1, 4), 1000))]))
        x = np.array([[0.1, 0.2, 0.3, 0.7]], np.float32)
        half = x.astype(np.float16)
        expected = (half + np.float16(1000)) - np.float16(1000)
        assert (
            run(emulated(graph), x=x).tolist() == expected.astype(np.float32).tolist() == [[0, 0, 0.5, 0.5]]
        )

    @pytest.mark.parametrize("name", ["generator", "encoder"])
    def test_it_is_near_and_not_equal(self, request, model, name):
        graph = request.getfixturevalue(name)
        samples = (calibration.text_samples if name == "encoder" else calibration.generator_samples)(model)
        inputs, psnr = calibration.rows(samples.inputs, slice(0, 16)), samples.psnr
        result = emulated(to_fp16(graph))
        onnx.checker.check_model(result, full_check=True)
        found = psnr(calibration.output(graph, inputs), calibration.output(result, inputs))
        assert 45 < found.min() < found.max() < 120
        nothing = emulated(to_fp16(graph, {node.name for node in graph.graph.node}))
        assert (calibration.output(nothing, inputs) == calibration.output(graph, inputs)).all()

    def test_beyond_its_range_is_infinity(self):
        nodes = [helper.make_node("Mul", ["x", "x"], ["y"], name="square")]
        graph = emulated(to_fp16(graph_of(nodes)))
        assert run(graph, x=np.array([[1, 200, 300, -300]], np.float32)).tolist() == [
            [1, 40000, np.inf, np.inf]
        ]


class Test_convert_mixed:
    def test_every_node_with_floats_is_in_one_part(self, generator, encoder):
        for graph in (generator, encoder):
            floats = float_tensors(graph)
            named = [node.name for nodes in group_parts(graph).values() for node in nodes]
            assert len(named) == len(set(named))
            assert set(named) == {
                node.name
                for node in graph.graph.node
                if floats & {*node.input, *node.output} and node.op_type != "Cast"
            }
        assert {"blocks.0 convolutions", "vit norms", "vit softmax", "to_rgb convolutions"} <= set(
            group_parts(generator)
        )

    def test_what_overflows_stays(self):
        """x → 300·x → its square / 9e4, which is 1e6 on the way; and a part that is harmless."""
        nodes = [
            helper.make_node("Mul", ["x", "c"], ["a"], name="blocks.0/Mul_0"),
            helper.make_node("Mul", ["a", "a"], ["b"], name="blocks.1/Mul_1"),
            helper.make_node("Mul", ["b", "d"], ["e"], name="blocks.1/Mul_2"),
            helper.make_node("Add", ["e", "x"], ["y"], name="blocks.2/Add_3"),
        ]
        graph = graph_of(nodes, [("c", [[300] * 4]), ("d", [[1 / 9e4] * 4])])
        x = np.random.default_rng(0).uniform(0.5, 1, (24, 4)).astype(np.float32)
        calls = []
        samples = Samples({"x": x}, row_psnr)
        result, report = convert_mixed(graph, samples, 30, lambda *call: calls.append(call))
        found = {part.name: part for part in report}
        assert {name: part.fp16 for name, part in found.items()} == {
            "blocks.0 the rest": True,
            "blocks.1 the rest": False,
            "blocks.2 the rest": True,
        }
        assert found["blocks.1 the rest"].share_of_largest == pytest.approx(
            9e4 * x.max() ** 2 / LARGEST, rel=0.01
        )
        assert found["blocks.1 the rest"].psnr_db is None or found["blocks.1 the rest"].psnr_db < 0
        assert np.isfinite(run(emulated(result), x=x)).all()
        assert [(done, total) for _, done, total in calls] == [(number, 3) for number in range(4)]
        json.dumps([vars(part) for part in report], allow_nan=False)

    def test_what_errs_stays(self):
        nodes = [
            helper.make_node("Add", ["x", "c"], ["a"], name="blocks.0/Add_0"),
            helper.make_node("Sub", ["a", "c"], ["b"], name="blocks.0/Sub_1"),
            helper.make_node("Mul", ["b", "b"], ["y"], name="blocks.1/Mul_2"),
        ]
        graph = graph_of(nodes, [("c", [[1000] * 4])])
        x = np.random.default_rng(0).uniform(0, 1, (24, 4)).astype(np.float32)
        _, report = convert_mixed(graph, Samples({"x": x}, row_psnr), 45)
        assert {part.name: part.fp16 for part in report} == {
            "blocks.0 the rest": False,
            "blocks.1 the rest": True,
        }

    def test_nothing_can_be(self, monkeypatch):
        monkeypatch.setattr(mixed_precision, "_MARGIN_DB", 200)
        graph = graph_of([helper.make_node("Mul", ["x", "x"], ["y"], name="square")])
        x = np.random.default_rng(0).uniform(0, 1, (24, 4)).astype(np.float32)
        with pytest.raises(QualityGateFailed, match=r"generator.*fp16"):
            convert_mixed(graph, Samples({"x": x}, row_psnr), 45)


def test_psnr_of_rows():
    reference = np.array([[0, 1, 2], [5, 5, 5], [5, 5, 5], [0, 0, 4]], np.float32)
    found = row_psnr(reference, np.array([[0, 1, 2], [5, 5, 5], [5, 5, 6], [0, 0, 3]], np.float32))
    assert found[:3].tolist() == [200, 200, -np.inf]
    assert found[3] == pytest.approx(10 * np.log10(4**2 / (1 / 3)))


class Test_select:
    def test_the_most_error_for_the_work_goes_first(self):
        alone = [np.array([40.0]), np.array([50.0]), np.array([45.0])]
        sums = []

        def psnr(chosen):
            sums.append(sorted(chosen))
            return np.array([60.0])

        assert sorted(select(alone, [1000, 10, 1], psnr, 39)) == [0, 1]
        assert sums == [[0, 1]]
        assert select(alone, [1, 1, 1], psnr, 70) == []

    def test_until_what_is_measured_is_good_enough(self):
        alone = [np.array([80.0]), np.array([70.0]), np.array([np.nan])]
        assert select(alone, [1, 1, 1], lambda chosen: np.array([90.0 - 25 * len(chosen)]), 50) == [0]
        assert select(alone, [1, 1, 1], lambda chosen: np.array([np.nan]), 50) == []


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory):
    return export_bundle(tiny_checkpoint, tmp_path_factory.mktemp("half") / "bundle", precisions=["fp16"])


class Test_a_bundle:
    def test_its_files(self, exported):
        graphs = read_manifest(exported.bundle).graphs
        assert {
            graph: {name: spec.file for name, spec in specs.items()} for graph, specs in graphs.items()
        } == {
            "text_encoder": {"fp16": "text_encoder.fp16.onnx"},
            "generator": {"fp16": "generator.fp16.onnx"},
        }

    def test_what_was_measured_goes_with_it(self, exported):
        parity = json.loads((exported.bundle / "parity.json").read_text())
        (pictures,) = parity["pictures"]
        where = devices.verified_on("fp16")[0]
        assert (pictures["precision"], pictures["device"], pictures["pictures"]) == ("fp16", where, 256)
        assert pictures["psnr_p1"] >= 45
        assert {case["device"] for case in parity["cases"]} == {where}
        assert set(parity["fp16"]) == {"text_encoder", "generator"}
        for found in parity["fp16"].values():
            assert any(part["fp16"] for part in found)
            assert all(0 < part["share_of_largest"] < 1 for part in found)

    def test_a_cpu_runs_the_file_where_optimisation_is_capped(self, exported):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        session = onnxruntime.InferenceSession(
            exported.bundle / "generator.fp16.onnx", options, providers=["CPUExecutionProvider"]
        )
        shapes = {each.name: each.shape[1] for each in session.get_inputs()}
        inputs = {
            name: np.random.default_rng(0).standard_normal((3, size), np.float32)
            for name, size in shapes.items()
        }
        (image,) = session.run(None, inputs)
        assert image.dtype == np.float32
        assert (
            picture_psnr(
                image, run(emulated(onnx.load(exported.bundle / "generator.fp16.onnx")), **inputs)
            ).min()
            > 45
        )

    def test_beside_a_precision_for_cpus_it_has_a_text_encoder_for_them(self):
        assert precisions.text_precisions(["fp16"]) == ("fp16",)
        assert precisions.text_precisions(["fp32", "fp16"]) == ("fp32", "fp16")
        assert precisions.text_precisions(["fp16", "bf16"]) == ("fp32", "fp16")
        assert precisions.text_precisions(["fp16", "w16a32", "int8"]) == ("w16a32", "fp16")
        assert precisions.text_precisions(["int8"]) == ("fp32",)
