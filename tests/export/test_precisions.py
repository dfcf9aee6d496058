"""Precisions other than fp32: what is stored, what is computed, and the gate that each has to pass."""

import json
import re
import shutil
import subprocess
import sys

import galip_runtime
import numpy as np
import pytest
from galip_export import devices, export_bundle, graph_writer, parity, precisions
from galip_export.comparison import first_percentile, picture_psnr
from galip_export.prompts import CALIBRATION_PROMPTS, GATE_PROMPTS
from galip_runtime import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.backends import openvino_runner
from galip_runtime.backends.openvino_runner import openvino_computes_in, openvino_core, openvino_settings
from galip_runtime.bundle.manifest import read_manifest
from onnx import numpy_helper
from studies.random_weights import CONTRAST

BF16 = ["bf16"] if openvino_computes_in("bf16") else []
INT8 = ["int8"] if openvino_computes_in("int8") else []
ALL = ["fp32", "w16a32", *BF16, *INT8]


@pytest.fixture(scope="module")
def checkpoint(tame_checkpoint):
    return tame_checkpoint


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    return export_bundle(checkpoint, tmp_path_factory.mktemp("bundles") / "all", precisions=ALL)


def weights(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def psnr(a, b):
    return float(picture_psnr(a, b).min())


class Test_a_bundle_of_all:
    def test_its_files(self, exported):
        graphs = read_manifest(exported.bundle).graphs
        files = {name: spec.file for name, spec in graphs["generator"].items()}
        assert files == {
            "fp32": "generator.onnx",
            "w16a32": "generator.w16a32.onnx",
            **dict.fromkeys(INT8, "generator.int8.onnx"),
            **dict.fromkeys(BF16, "generator.onnx"),
        }
        assert set(graphs["text_encoder"]) == {"fp32", "w16a32"}

    @pytest.mark.parametrize("name", [name for name in ALL if name != "fp32"])
    def test_its_pictures(self, exported, name):
        expected = galip_runtime.load(exported.bundle, device="cpu", precision="fp32")
        noise, sentence = expected.noise([1, 2, 3]), expected.encode_text(["a", "red house", "🍎"])
        model = galip_runtime.load(exported.bundle, precision=name)
        assert model.info()["precision"]["generator"] == name
        assert model.info()["precision"]["text_encoder"] == ("w16a32" if name == "w16a32" else "fp32")
        image = expected.decode(noise, sentence)
        found = psnr(model.decode(noise, sentence), image)
        assert precisions.PRECISIONS[name].psnr_db - 6 < found < 110
        assert found > psnr(image, np.full_like(image, image.mean())) + 15  # far better than grey
        found = model.generate(["a", "red house", "🍎"], [1, 2, 3]).astype(int)
        assert np.abs(found - expected.generate(["a", "red house", "🍎"], [1, 2, 3])).mean() < 3

    def test_what_was_measured_goes_with_it(self, exported):
        parity = json.loads((exported.bundle / "parity.json").read_text())
        assert parity["gates"]["w16a32"] == {"relative": None, "psnr_db": 70}
        measured = {(each["precision"], each["device"]): each for each in parity["pictures"]}
        assert set(measured) == {
            ("w16a32", "cpu"),
            ("w16a32", "openvino"),
            *((name, "openvino") for name in (*BF16, *INT8)),
        }
        for (name, _), each in measured.items():
            assert each["pictures"] == 256
            assert precisions.PRECISIONS[name].psnr_db <= each["psnr_p1"] <= each["psnr_median"] < 120
            assert each["psnr_min"] <= each["psnr_p1"]
            assert 0.5 * CONTRAST < each["std"] < 2 * CONTRAST
        cases = {(each["graph"], each["precision"], each["device"]) for each in parity["cases"]}
        assert ("text_encoder", "w16a32", "openvino") in cases
        assert ("generator", "int8", "cpu") not in cases
        assert exported.to_dict()["pictures"] == parity["pictures"]

    def test_it_says_what_it_is_smaller_by(self, exported):
        sizes = {(graph.graph, graph.precision): graph.size for graph in exported.graphs}
        for graph in ("text_encoder", "generator"):
            assert sizes[graph, "w16a32"] < 0.8 * sizes[graph, "fp32"]
        for name in INT8:
            assert sizes["generator", name] < sizes["generator", "fp32"]


@pytest.mark.parametrize("name", ["w16a32", *BF16, *INT8])
def test_a_bundle_of_one(checkpoint, tmp_path, name):
    calls = []
    report = export_bundle(
        checkpoint, tmp_path / "one", precisions=name, progress=lambda *call: calls.append(call)
    )
    stages = {stage: total for stage, _, total in calls}
    assert ("finding ranges for int8" in stages) == (name == "int8")
    for stage, total in stages.items():
        done = [done for other, done, _ in calls if other == stage]
        assert done == list(range(total + 1)) or (done == [0] and total == 1)
    model = galip_runtime.load(report.bundle)
    assert model.info()["precision"]["generator"] == name
    assert model.generate("a red house", 1).shape == (1, 28, 28, 3)


def test_nothing_here_computes_in_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu"])
    for name in ("int8", "bf16"):
        with pytest.raises(ProviderUnavailable, match=name):
            export_bundle(checkpoint, tmp_path / "out", precisions=name)
    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu", "openvino"])
    monkeypatch.setattr(openvino_runner, "openvino_computes_in", lambda name: name == "fp32")
    for name, instructions in (("bf16", "AVX512_BF16"), ("int8", "AVX512_VNNI")):
        with pytest.raises(ProviderUnavailable, match=f"{name}.*{instructions}"):
            export_bundle(checkpoint, tmp_path / "out", precisions=name)
    with pytest.raises(UsageError, match="fp8"):
        export_bundle(checkpoint, tmp_path / "out", precisions="fp8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["w16a32", *INT8])
def test_pictures_that_are_too_far_are_no_bundle(checkpoint, tmp_path, monkeypatch, name):
    real = graph_writer.GraphWriter._convert

    def worse(self, graph, precision, proto):
        result = real(self, graph, precision, proto)
        for tensor in result.graph.initializer:
            if tensor.name.startswith(("to_rgb.weight", "to_rgb.bias")) and "/zero" not in tensor.name:
                value = numpy_helper.to_array(tensor) * 1.3 + 0.02
                tensor.CopyFrom(
                    numpy_helper.from_array(value.astype(numpy_helper.to_array(tensor).dtype), tensor.name)
                )
        return result

    monkeypatch.setattr(graph_writer.GraphWriter, "_convert", worse)
    with pytest.raises(QualityGateFailed, match=name):
        export_bundle(checkpoint, tmp_path / "out", precisions=name)
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_calibration_and_gate_have_nothing_in_common():
    assert len(GATE_PROMPTS) == len(set(GATE_PROMPTS)) == 256
    assert len(set(CALIBRATION_PROMPTS)) == 256
    assert not set(GATE_PROMPTS) & set(CALIBRATION_PROMPTS)
    for part in (GATE_PROMPTS, CALIBRATION_PROMPTS):  # of each kind, some in each
        for word in ("blob style", "twemoji style", "this bird is", "in a park"):
            assert any(word in prompt for prompt in part)


def test_noise_of_calibration_and_gate_has_nothing_in_common(tame_samples):
    gate = parity.noise(range(parity.PICTURES), tame_samples.inputs["noise"].shape[1])
    assert not {row.tobytes() for row in gate} & {row.tobytes() for row in tame_samples.inputs["noise"]}


def test_a_graph_that_is_altered_is_refused(exported, tmp_path):
    broken = shutil.copytree(exported.bundle, tmp_path / "broken")
    data = (broken / "generator.w16a32.onnx").read_bytes()
    (broken / "generator.w16a32.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FileRefused, match=r"generator\.w16a32\.onnx"):
        galip_runtime.load(broken, precision="w16a32")


def test_the_sentence_s_part_is_computed_once_a_sentence(tiny_export, monkeypatch):
    model = galip_runtime.load(tiny_export.bundle, device="cpu")
    graph = model._runners["condition"]
    rows, run = [], graph.run
    monkeypatch.setattr(graph, "run", lambda inputs: rows.append(len(inputs["sentence"])) or run(inputs))
    first = model.generate(["a", "b", "a"], [1, 2, 3])
    assert rows == [2]
    assert (model.generate(["b", "a"], [2, 3]) == first[1:]).all()
    model.generate("a", range(20), batch_size=3)
    assert rows == [2]
    model.generate("c", 1)
    assert rows == [2, 1]


def test_the_graph_by_itself_still_takes_noise_and_sentence(tiny_export):
    """For whoever runs the ONNX file without the runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        tiny_export.bundle / "generator.onnx", providers=["CPUExecutionProvider"]
    )
    assert [each.name for each in session.get_inputs()] == ["noise", "sentence"]
    model = galip_runtime.load(tiny_export.bundle, device="cpu")
    noise, sentence = model.noise([1, 2]), model.encode_text(["a", "b"])
    (image,) = session.run(None, {"noise": noise, "sentence": sentence})
    assert np.abs(image - model.decode(noise, sentence)).max() < 1e-5 * image.std()


def test_without_rewrites_it_is_run_whole(tiny_checkpoint, tiny_export, tmp_path):
    plain = export_bundle(tiny_checkpoint, tmp_path / "plain", rewrites="none")
    model = galip_runtime.load(plain.bundle, device="cpu")
    assert set(model._runners) == {"text_encoder", "generator"}
    ours = galip_runtime.load(tiny_export.bundle, device="cpu").generate("a", [1, 2])
    assert np.abs(model.generate("a", [1, 2]).astype(int) - ours).max() <= 1


@pytest.mark.parametrize("name", ["w16a32", *INT8])
def test_the_converted_file_by_itself_takes_noise_and_sentence(exported, name):
    spec = read_manifest(exported.bundle).graphs["generator"][name]
    settings = openvino_settings(name, 1)
    request = (
        openvino_core().compile_model(exported.bundle / spec.file, "CPU", settings).create_infer_request()
    )
    model = galip_runtime.load(exported.bundle, device="openvino", precision=name)
    noise, sentence = model.noise([1, 2]), model.encode_text(["a", "b"])
    whole = request.infer({"noise": noise, "sentence": sentence})[0]
    assert psnr(whole, model.decode(noise, sentence)) > precisions.PRECISIONS[name].psnr_db


@pytest.mark.long
@pytest.mark.parametrize("name", ["w16a32", *INT8])
def test_without_rewrites(checkpoint, tmp_path, name):
    report = export_bundle(checkpoint, tmp_path / "plain", precisions=name, rewrites="none")
    assert galip_runtime.load(report.bundle).info()["precision"]["generator"] == name


def test_one_picture_at_a_time_is_judged_too(checkpoint, tmp_path, monkeypatch):
    """The many pictures are made in eights."""
    real = galip_runtime.Model._run_generator

    def broken(self, noise, sentence):
        image = real(self, noise, sentence)
        return image + 0.9 * (len(noise) == 1)

    monkeypatch.setattr(galip_runtime.Model, "_run_generator", broken)
    with pytest.raises(QualityGateFailed, match=r"w16a32.*\[7\]"):
        export_bundle(checkpoint, tmp_path / "out", precisions="w16a32")


def test_an_export_without_onnxruntime(checkpoint, tmp_path):
    code = """
import sys; sys.modules["onnxruntime"] = None
from pathlib import Path
from galip_export import export_bundle
from galip_runtime import ProviderUnavailable
checkpoint, out, more = map(Path, sys.argv[1:])
print(sorted({case.device for case in export_bundle(checkpoint, out, precisions=["fp32", "w16a32"]).parity}))
try:
    export_bundle(checkpoint, more, precisions="int8")
except ProviderUnavailable as error:
    print(error)
"""
    call = [sys.executable, "-c", code, checkpoint, tmp_path / "out", tmp_path / "more"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=True)
    first, second = done.stdout.splitlines()
    assert first == "['openvino']"
    assert re.search(r"int8: (onnxruntime calibrates it: .* cannot be imported|this CPU does not)", second)
    versions = read_manifest(tmp_path / "out").versions
    assert "onnxruntime" not in versions
    assert versions["openvino"]
    assert not (tmp_path / "more").exists()


def test_the_first_percentile_of_few_is_the_least():
    assert first_percentile(np.array([3.0, 1.0, 2.0])) == 1
    assert first_percentile(np.arange(256.0)) == 2
