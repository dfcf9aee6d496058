"""int8: how tensors are rounded, what calibration chooses, and what is written where int8 falls short."""

import json

import galip_runtime
import numpy as np
import onnx
import pytest
from galip_export import calibration, engines, export_bundle, precisions, quantization
from galip_export.activation_ranges import least_squares_range, tensor_ranges
from galip_export.int8_trial import Trial
from galip_export.qdq import Rounding, activation, quantized, stored_weight
from galip_export.sensitivity import choose, count_macs
from galip_runtime import QualityGateFailed, UsageError
from galip_runtime.backends.openvino_runner import openvino_computes_in
from galip_runtime.bundle.manifest import read_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

runs_int8 = pytest.mark.skipif(not openvino_computes_in("int8"), reason="this CPU does not compute in int8")
UNREACHABLE = 100.0


@pytest.fixture(scope="module")
def few(tame_samples):
    return calibration.rows(tame_samples.inputs, slice(0, 6))


@pytest.fixture(scope="module")
def groups(tame_generator):
    return quantization.group_nodes(tame_generator)


@pytest.fixture(scope="module")
def symmetric(groups):
    return {node.input[0]: node.op_type != "Conv" for group in groups for node in group}


@pytest.fixture(scope="module")
def activations(tame_generator, few, symmetric):
    ranges = tensor_ranges(tame_generator, list(symmetric), few, lambda: None)
    return {name: activation(*found.whole, symmetric[name]) for name, found in ranges.items()}


@pytest.fixture(scope="module")
def trial(tame_generator, groups, symmetric):
    return Trial(tame_generator, groups, symmetric, batch=3)


@pytest.fixture(scope="module")
def quantized_at(tame_generator, tame_samples):
    """Quantizes the generator with a goal, once for each."""
    done = {}

    def quantize(goal):
        if goal not in done:
            done[goal] = quantization.quantize(tame_generator, tame_samples, goal)
        return done[goal]

    return quantize


class Test_weights:
    @given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 3, 3, 3), (5, 2, 1, 1), (7, 6)]))
    def test_a_scale_a_channel_and_the_nearest_integers(self, seed, shape):
        weight = np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)
        axis = 0 if len(shape) == 4 else 1
        stored, scale = stored_weight(weight, axis)
        assert (stored.dtype, stored.shape, scale.shape) == (np.int8, shape, (shape[axis],))
        wide = scale.reshape([-1 if index == axis else 1 for index in range(len(shape))])
        assert stored.min() >= -127  # symmetric
        inside = np.abs(weight) <= 127 * wide
        assert (np.abs(stored * wide - weight)[inside] <= 0.501 * np.broadcast_to(wide, shape)[inside]).all()

    def test_clipping_is_chosen_where_it_gains(self):
        weight = np.random.default_rng(0).standard_normal((3, 40_000, 1, 1)).astype(np.float32)
        weight[:2, 7] = 5.5
        weight[2] = np.linspace(-1, 1, 40_000)[:, None, None]
        stored, scale = stored_weight(weight, 0)
        whole = np.abs(weight).max(axis=(1, 2, 3)) / 127
        assert (scale[:2] < 0.99 * whole[:2]).all()
        assert scale[2] == pytest.approx(whole[2])  # nothing to gain from uniform numbers
        assert np.abs(stored).max() == 127

    def test_zeros_stay_zeros(self):
        stored, scale = stored_weight(np.zeros((2, 3), np.float32), 1)
        assert (stored == 0).all()
        assert (scale > 0).all()


class Test_ranges:
    @given(st.integers(0, 2**32 - 1), st.floats(-2, 0), st.floats(0, 100))
    def test_the_least_squares_range_is_within_and_no_worse(self, seed, low, high):
        values = np.random.default_rng(seed).standard_normal(2000).astype(np.float32).clip(low, high)
        whole = float(min(0, values.min())), float(max(0, values.max()))
        found = least_squares_range(values, whole)
        assert whole[0] <= found[0] <= 0 <= found[1] <= whole[1]

        def error(bounds):
            step = max(bounds[1] - bounds[0], 1e-6) / 255
            zero = round(-bounds[0] / step)
            rounded = (np.rint(values / step) + zero).clip(0, 255) - zero
            return np.square(rounded * step - values).mean()

        assert error(found) <= 1.5 * error(whole) + 1e-9

    def test_an_outlier_is_clipped(self):
        values = np.append(np.random.default_rng(0).standard_normal(1_000_000), 10).astype(np.float32)
        low, high = least_squares_range(values, (float(values.min()), 10.0))
        assert -5 < low < -3
        assert 3 < high < 9

    def test_the_whole_range_is_that_of_all_values(self, tame_generator, few, symmetric):
        name = next(iter(symmetric))
        found = tensor_ranges(tame_generator, [name], few, lambda: None)[name]
        shown = onnx.ModelProto()
        shown.CopyFrom(tame_generator)
        shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        values = np.concatenate([outputs[1] for outputs in calibration.run(shown, few)])
        assert found.whole == pytest.approx((min(0, values.min()), max(0, values.max())), rel=1e-5)


class Test_trial:
    def test_with_nothing_in_int8_it_is_the_float_graph(self, trial, tame_generator, few, activations):
        images = trial.images(few, (), Rounding(activations, {}), lambda: None)
        expected = calibration.output(tame_generator, few)
        assert np.abs(images - expected).max() < 1e-5 * expected.std()

    def test_it_computes_what_the_written_graph_does(self, trial, tame_generator, groups, few, activations):
        errors = trial.mean_errors(few, activations, lambda: None)
        rounding = Rounding(activations, {name: -error for name, error in errors.items()})
        chosen = range(0, len(groups), 2)
        images = trial.images(few, chosen, rounding, lambda: None)
        graph = quantized(tame_generator, [node for number in chosen for node in groups[number]], rounding)
        onnx.checker.check_model(graph, full_check=True)
        assert np.abs(calibration.output(graph, few) - images).max() < 1e-3 * images.std()

    def test_the_correction_takes_the_mean_error_away(self, trial, tame_generator, groups, few, activations):
        errors = trial.mean_errors(few, activations, lambda: None)
        convolution = groups[0][0]

        def error(corrections):
            rounding = Rounding(activations, corrections)
            graphs = [tame_generator, quantized(tame_generator, [convolution], rounding)]
            outputs = []
            for graph in graphs:
                shown = onnx.ModelProto()
                shown.CopyFrom(graph)
                del shown.graph.output[:]
                shown.graph.output.append(
                    onnx.helper.make_tensor_value_info(convolution.output[0], onnx.TensorProto.FLOAT, None)
                )
                outputs.append(calibration.output(shown, few))
            return np.abs((outputs[1] - outputs[0]).mean(axis=(0, 2, 3))).max()

        plain, corrected = error({}), error({name: -value for name, value in errors.items()})
        assert plain > 1e-5
        assert corrected < 0.02 * plain


errors_and_macs = st.lists(st.tuples(st.floats(1e-8, 1e-2), st.integers(1, 10**6)), min_size=1, max_size=30)


def psnr_of(errors):
    return float(-10 * np.log10(sum(errors)))


class Test_choose:
    @given(errors_and_macs, st.floats(15, 80), st.floats(0.3, 3))
    def test_the_largest_set_that_reaches_the_goal_but_for_the_knee(self, parts, goal, factor):
        """Errors add up to `factor` of what they are alone."""
        errors, macs = zip(*parts, strict=True)
        asked = []

        def psnr(numbers):
            asked.append(len(numbers))
            return psnr_of([factor * errors[number] for number in numbers])

        alone = [np.array([psnr_of([error])]) for error in errors]
        chosen, curve = choose(alone, macs, sum(macs), psnr, goal)
        order = sorted(range(len(parts)), key=lambda part: errors[part] / macs[part])
        reaching = [n for n in range(1, len(parts) + 1) if psnr(order[:n]) >= goal]
        assert len(chosen) <= max(reaching, default=0)
        if not reaching:
            assert chosen == []
            return
        assert psnr(chosen) >= goal
        for last in range(len(chosen), max(reaching)):  # each part that the knee leaves out was worth it
            gain = psnr(order[:last]) - psnr(order[: last + 1])
            assert gain >= 0.999 * 100 * macs[order[last]] / sum(macs)
        assert [point.parts for point in curve] == list(range(1, len(parts) + 1))
        assert curve[-1].share == pytest.approx(1)
        assert curve[len(chosen) - 1].measured_db == pytest.approx(psnr(chosen))

    @given(errors_and_macs, st.floats(15, 80))
    def test_few_sets_are_measured_where_errors_add_up(self, parts, goal):
        errors, macs = zip(*parts, strict=True)
        asked = []

        def psnr(numbers):
            asked.append(tuple(numbers))
            return psnr_of([errors[number] for number in numbers])

        choose([np.array([psnr_of([error])]) for error in errors], macs, sum(macs), psnr, goal)
        assert len(set(asked)) <= 5

    @settings(max_examples=30)
    @given(st.integers(0, 2**32 - 1))
    def test_it_ends_whatever_is_measured(self, seed):
        random = np.random.default_rng(seed)
        alone = [random.uniform(20, 60, 4) for _ in range(12)]
        values = {n: random.choice([np.nan, -np.inf, *random.uniform(10, 60, 5)]) for n in range(13)}
        chosen, _ = choose(alone, [1] * 12, 12, lambda numbers: values[len(numbers)], 40)
        assert not chosen or values[len(chosen)] >= 40


class Test_quantize:
    def test_the_goal_is_kept_and_the_report_says_by_what(self, tame_generator, tame_samples, quantized_at):
        graph, report = quantized_at(40)
        onnx.checker.check_model(graph, full_check=True)
        macs = count_macs(tame_generator)
        assert all(group.multiply_adds == sum(macs[name] for name in group.nodes) for group in report.groups)
        rounded = {node.name for node in graph.graph.node if any("/float" in name for name in node.input)}
        assert rounded == {name for group in report.groups for name in group.nodes if group.int8}
        chosen = sum(group.multiply_adds for group in report.groups if group.int8)
        assert report.share == pytest.approx(chosen / sum(macs.values()))
        assert 0.8 < report.share < 1
        point = next(point for point in report.curve if point.share == report.share)
        assert report.psnr_db == point.measured_db >= 40
        images, expected = (
            calibration.output(graph, tame_samples.inputs),
            calibration.output(tame_generator, tame_samples.inputs),
        )
        found = np.quantile(tame_samples.psnr(expected, images), 0.01)
        assert found == pytest.approx(report.psnr_db, abs=1.5)

    def test_more_decibels_leave_more_in_float(self, quantized_at):
        low, high = quantized_at(40)[1], quantized_at(50)[1]
        assert 0 < high.share < low.share
        assert high.psnr_db >= 50
        assert low.curve[-1].share == high.curve[-1].share

    def test_what_cannot_be_reached_says_what_can(self, tame_generator, tame_samples):
        with pytest.raises(QualityGateFailed, match=r"100 dB.*\d dB with [\d.]+%.*--int8-psnr"):
            quantization.quantize(tame_generator, tame_samples, UNREACHABLE)

    def test_the_same_again(self, tame_generator, tame_samples, quantized_at):
        again, _ = quantization.quantize(tame_generator, tame_samples, 40)
        first = quantized_at(40)[0]
        assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)

    def test_the_float_graph_stays(self, tame_generator, quantized_at, tame_model, traced_graphs):
        quantized_at(40)
        fresh = traced_graphs.generator(tame_model)
        assert tame_generator.SerializeToString(deterministic=True) == fresh.SerializeToString(
            deterministic=True
        )

    def test_a_bias_is_the_layer_s_and_the_correction(self, tame_generator, quantized_at):
        graph, report = quantized_at(40)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        plain = {tensor.name: numpy_helper.to_array(tensor) for tensor in tame_generator.graph.initializer}
        convolutions = {node.name: node for node in tame_generator.graph.node if node.op_type == "Conv"}
        found = [
            name for group in report.groups if group.int8 for name in group.nodes if name in convolutions
        ]
        assert found
        for name in found:
            inputs = convolutions[name].input
            before = plain[inputs[2]] if len(inputs) > 2 else 0
            change = np.abs(stored[f"{name}/bias"] - before)
            assert 0 < change.max() < 0.1

    def test_convolutions_of_one_tensor_go_together(self, tame_generator, groups):
        convolutions = [node.name for node in tame_generator.graph.node if node.op_type == "Conv"]
        grouped = [node.name for group in groups for node in group]
        assert len(grouped) == len(set(grouped)) > len(convolutions)
        assert set(convolutions) < set(grouped)
        assert len([group for group in groups if group[0].op_type == "MatMul"]) == 1
        for group in groups:
            if group[0].op_type == "Conv":
                assert len({node.input[0] for node in group}) == 1

    def test_pictures_for_ranges_are_not_those_that_are_judged(self, tame_samples):
        ranged, judged = quantization._split(tame_samples.inputs)
        one, other = ({row.tobytes() for row in part["noise"]} for part in (ranged, judged))
        assert not one & other
        assert (len(one), len(other)) == (12, 40)


class Test_the_goal:
    def test_of_more_or_less_than_the_gate(self):
        assert precisions.with_int8_psnr(None, ["fp32"]) is precisions.PRECISIONS
        for goal, gate in ((30.0, 30.0), (38.0, 38.0), (54.0, 38.0)):
            table = precisions.with_int8_psnr(goal, ["int8", "fp32"])
            assert (table["int8"].goal_db, table["int8"].psnr_db) == (goal, gate)
            assert {**table, "int8": None} == {**precisions.PRECISIONS, "int8": None}

    @pytest.mark.parametrize("goal", [19.9, 100.1, float("nan"), float("inf"), -40.0])
    def test_out_of_range(self, goal):
        with pytest.raises(UsageError, match="between 20 and 100"):
            precisions.with_int8_psnr(goal, ["int8"])

    def test_without_int8(self, tame_checkpoint, tmp_path):
        with pytest.raises(UsageError, match="--int8-psnr"):
            export_bundle(tame_checkpoint, tmp_path / "out", precisions="fp32", int8_psnr=40)
        assert list(tmp_path.iterdir()) == []


@runs_int8
class Test_where_int8_falls_short:
    def test_the_others_are_written(self, tame_checkpoint, tmp_path):
        out = tmp_path / "out"
        report = export_bundle(tame_checkpoint, out, precisions=["fp32", "int8"], int8_psnr=UNREACHABLE)
        assert sorted(path.name for path in out.iterdir()) == [
            "generator.onnx", "manifest.json", "merges.txt.gz", "parity.json", "text_encoder.onnx",
        ]  # fmt: skip
        assert list(report.left_out) == ["int8"]
        assert "dB with" in report.left_out["int8"]
        parity = json.loads((out / "parity.json").read_text())
        assert parity["left_out"] == report.to_dict()["left_out"] == report.left_out
        assert "int8" not in parity
        assert {case["precision"] for case in parity["cases"]} == {"fp32"}
        assert list(read_manifest(out).graphs["generator"]) == ["fp32"]
        assert galip_runtime.load(out).generate("a", 1).shape == (1, 28, 28, 3)

    def test_alone_it_is_no_bundle(self, tame_checkpoint, tmp_path):
        with pytest.raises(QualityGateFailed, match="int8 does not reach"):
            export_bundle(tame_checkpoint, tmp_path / "out", precisions="int8", int8_psnr=UNREACHABLE)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kept", ["fp32", "w16a32"])
    def test_pictures_that_are_too_far_are_left_out_afterwards(
        self, tame_checkpoint, tmp_path, monkeypatch, kept
    ):
        real = galip_runtime.Model._run_generator

        def worse(self, noise, sentence):
            image = real(self, noise, sentence)
            return image + 0.5 * (self.info()["precision"]["generator"] == "int8")

        monkeypatch.setattr(galip_runtime.Model, "_run_generator", worse)
        out = tmp_path / "out"
        report = export_bundle(tame_checkpoint, out, precisions=["int8", kept])
        assert list(report.left_out) == ["int8"]
        assert not (out / "generator.int8.onnx").exists()
        manifest = read_manifest(out)
        assert {name for name in manifest.files if name.endswith(".onnx")} == {
            path.name for path in out.glob("*.onnx")
        }
        assert {graph: list(found) for graph, found in manifest.graphs.items()} == {
            "text_encoder": [kept], "generator": [kept],
        }  # fmt: skip
        assert {row.precision for row in report.pictures} == {kept} - {"fp32"}
        with pytest.raises(QualityGateFailed, match="int8"):
            export_bundle(tame_checkpoint, tmp_path / "alone", precisions="int8")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_plain_precision_that_fails_is_no_bundle(self, tame_checkpoint, tmp_path, monkeypatch):
        real = galip_runtime.Model._run_generator
        monkeypatch.setattr(galip_runtime.Model, "_run_generator", lambda *args: real(*args) + 0.5)
        with pytest.raises(QualityGateFailed, match="fp32"):
            export_bundle(tame_checkpoint, tmp_path / "out", precisions=["int8", "fp32"])
        assert list(tmp_path.iterdir()) == []


def test_engines_are_not_built_from_what_is_left_out():
    engines.check_engine_precision(["fp32", "int8"], {"int8": "too far"})
    with pytest.raises(QualityGateFailed, match=r"fp16.*too far"):
        engines.check_engine_precision(["fp32", "fp16"], {"fp16": "too far"})
