"""TensorRT engines, built without a GPU by TensorRT for RTX: what is in them, and what is beside them."""

import contextlib
import dataclasses
import json
import re
import shutil
import signal
from types import SimpleNamespace

import galip_runtime
import numpy as np
import onnx
import pytest
from galip_export import BuildOptions, add_engines, engines, export_bundle, tensorrt_builder
from galip_export.engines import engine_precision
from galip_export.inspection import check_fp16
from galip_export.mixed_precision import to_fp16
from galip_export.tensorrt_builder import Builder, build_options, profiles
from galip_runtime import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.backends.engines import EngineRecord, EngineTarget, Profile, choose_engine, read_records
from galip_runtime.bundle.manifest import describe_file, read_manifest, verify_files

from galip.cli import main

RTX = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
HERE = EngineTarget("tensorrt_rtx", RTX.__version__, "8.6")
TWO = BuildOptions(batches=(1, 4), archs=("8.6", "8.9"))


@pytest.fixture(scope="module")
def half(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "bundle"
    return export_bundle(tiny_checkpoint, folder, precisions=["fp32", "fp16"]).bundle


@pytest.fixture(scope="module")
def calls():
    return []


@pytest.fixture(scope="module")
def built(half, tmp_path_factory, calls):
    out = tmp_path_factory.mktemp("engines") / "bundle"
    add_engines(half, out, TWO, progress=lambda *call: calls.append(call))
    return out


def graph_spec(bundle):
    return read_manifest(bundle).graphs["generator"]["fp32"]


def choose(bundle, place=HERE, graph="generator"):
    return choose_engine(bundle, read_manifest(bundle), graph, "fp16", [place])


class Test_a_bundle_with_engines:
    def test_its_files(self, half, built):
        manifest = read_manifest(built)
        verify_files(built, manifest)
        added = set(manifest.files) - set(read_manifest(half).files)
        assert added == {
            f"engines/{graph}.fp16.{arch}.{ending}"
            for graph in ("text_encoder", "generator")
            for arch in ("sm86", "sm89")
            for ending in ("plan", "json")
        }
        assert {path.name for path in (built / "engines").iterdir()} == {name.split("/")[1] for name in added}

    def test_its_records(self, built):
        manifest = read_manifest(built)
        records = read_records(built, manifest)
        assert len(records) == 4
        for record in records:
            graph = manifest.graphs[record.graph]["fp16"].file
            assert record.onnx_sha256 == manifest.files[graph].sha256
            assert record.plan_sha256 == manifest.files[record.plan].sha256
            assert (record.package, record.package_version) == (HERE.package, HERE.package_version)
            assert record.profiles == (Profile(1, 1, 1), Profile(1, 4, 4))
            assert (
                EngineRecord.from_json((built / record.plan.replace(".plan", ".json")).read_bytes()) == record
            )
            total, in_fp16 = sum(record.weights.values()), record.weights["fp16"]
            assert in_fp16 > 0.9 * total
            assert record.layers["fp16"] > 0.5 * sum(record.layers.values())
            stored = onnx.load(built / graph).graph.initializer
            halves = sum(2 * int(np.prod(each.dims)) for each in stored if each.data_type == 10)
            assert in_fp16 == pytest.approx(halves, rel=0.1)
        assert {each.compute_capability for each in records} == {"8.6", "8.9"}

    def test_galip_info_tells_of_them(self, built, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["info", str(built), "--json"])
        found = json.loads(capsys.readouterr().out)["engines"]
        assert set(found) == {record.plan for record in read_records(built, read_manifest(built))}
        summary = found["engines/generator.fp16.sm86.plan"]
        assert (summary["package"], summary["compute_capability"]) == ("tensorrt_rtx", "8.6")
        assert (summary["batches"], summary["fits_graph"]) == ([1, 4], True)

    def test_it_is_run_as_any_other(self, half, built):
        prompts, seeds = ["a red house"], [1]
        expected = galip_runtime.load(half, device="cpu", precision="fp32").generate(prompts, seeds)
        assert (
            galip_runtime.load(built, device="cpu", precision="fp32").generate(prompts, seeds) == expected
        ).all()

    def test_progress_is_reported(self, built, calls):
        stages = {stage.split(":")[0] for stage, _, _ in calls}
        assert "engines/generator.fp16.sm89" in stages
        assert all(0 <= done <= total for _, done, total in calls)

    def test_the_engine_for_a_gpu(self, built):
        assert choose(built).plan == "engines/generator.fp16.sm86.plan"
        for place, difference in (
            (dataclasses.replace(HERE, compute_capability="12.0"), r"8\.6"),
            (dataclasses.replace(HERE, package_version="1.8.0"), r"1\.8\.0"),
            (EngineTarget("tensorrt", "11.0.0", "8.6"), r"tensorrt\b"),
        ):
            with pytest.raises(ProviderUnavailable, match=rf"{difference}.*galip export .* --trt-batch 1,4"):
                choose(built, place)

    def test_a_graph_exported_anew(self, built, tmp_path):
        other = shutil.copytree(built, tmp_path / "other")
        manifest = read_manifest(other)
        name = manifest.graphs["generator"]["fp16"].file
        model = onnx.load(other / name)
        model.doc_string = "another"
        onnx.save(model, other / name)
        with pytest.raises(FileRefused, match=name):
            verify_files(other, manifest)
        files = {**manifest.files, name: describe_file(other / name)}
        (other / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
        with pytest.raises(ProviderUnavailable, match="galip export"):
            choose(other)

    def test_damaged_ones_are_built_again(self, built, tmp_path):
        copy = tmp_path / "bundle"
        shutil.copytree(built, copy)
        (copy / "engines/generator.fp16.sm86.plan").write_bytes(b"broken")
        add_engines(copy, copy, BuildOptions(archs=("8.6",)), overwrite=True)
        verify_files(copy, read_manifest(copy))

    def test_built_again_in_place(self, built, tmp_path):
        copy = shutil.copytree(built, tmp_path / "copy")
        (record, *_) = add_engines(copy, copy, BuildOptions((2,), ("8.9",)), overwrite=True)
        assert record.profiles == (Profile(1, 2, 2),)
        assert len(list((copy / "engines").iterdir())) == 4
        verify_files(copy, read_manifest(copy))


def test_interrupted(half, tmp_path):
    """TensorRT itself would drop what Python raises while it builds."""

    def interrupt(what, done, total):
        if done:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        add_engines(half, tmp_path / "out" / "bundle", TWO, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_with_the_export(tiny_checkpoint, tmp_path):
    report = export_bundle(
        tiny_checkpoint, tmp_path / "bundle", precisions=["fp32"], engines=BuildOptions((1,), ("8.6",))
    )
    assert [each["plan"] for each in report.to_dict()["engines"]] == [
        "engines/text_encoder.fp32.sm86.plan",
        "engines/generator.fp32.sm86.plan",
    ]
    for record in report.engines:
        assert set(record.weights) == set(record.layers) == {"fp32"}
    verify_files(report.bundle, read_manifest(report.bundle))
    assert "parity.json" in read_manifest(report.bundle).files


class Test_what_cannot_be:
    def test_an_engine_that_came_out_in_fp32(self, half, tmp_path, monkeypatch):
        monkeypatch.setattr(
            tensorrt_builder, "count_types", lambda trt, network: ({"fp32": 9, "fp16": 1}, {"fp16": 10**9})
        )
        with pytest.raises(QualityGateFailed, match="10%") as error:
            add_engines(half, tmp_path / "out", TWO)
        assert error.value.exit_code == 3
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("stored", "fails"), [(10_400, False), (20_000, True), (None, False)])
    def test_weights_that_came_out_in_fp32(self, stored, fails):
        raises = pytest.raises(QualityGateFailed, match="generator") if fails else contextlib.nullcontext()
        with raises:
            check_fp16("generator.onnx", {"fp16": 9}, {"fp16": 10_000}, stored)

    def test_a_fp32_graph_called_fp16(self, half, tmp_path):
        with pytest.raises(QualityGateFailed, match="0%"):
            Builder(TWO, tmp_path / "out").build(half, graph_spec(half), "fp16", "8.6", 16)

    def test_a_graph_that_it_does_not_read(self, half, tmp_path):
        model = onnx.load(half / "generator.onnx")
        model.graph.node[0].op_type = "Unknown"
        onnx.save(model, tmp_path / "generator.onnx")
        with pytest.raises(FileRefused, match="Unknown"):
            Builder(TWO, tmp_path / "out").build(tmp_path, graph_spec(half), "fp32", "8.6", 16)

    def test_a_graph_that_it_does_not_build(self, half, tmp_path):
        model = to_fp16(onnx.load(half / "generator.onnx"))
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
        del model.graph.value_info[:]
        onnx.save(model, tmp_path / "generator.onnx")
        with pytest.raises(QualityGateFailed, match=r"generator\.onnx: .+"):
            Builder(TWO, tmp_path / "out").build(tmp_path, graph_spec(half), "fp16", "8.6", 16)

    def test_a_gpu_that_it_knows_not(self, half, tmp_path):
        with pytest.raises(ProviderUnavailable, match=r"9\.0.*sm86"):
            add_engines(half, tmp_path / "out", BuildOptions(archs=("9.0",)))

    @pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(archs=("8.6",), refit=True)])
    def test_no_gpu(self, half, tmp_path, monkeypatch, options):
        monkeypatch.setattr(tensorrt_builder, "_this_gpu", lambda: None)
        with pytest.raises(ProviderUnavailable, match=r"--trt-arch"):
            add_engines(half, tmp_path / "out", options)
        assert list(tmp_path.iterdir()) == []

    def test_a_version_compatible_one(self, half, tmp_path):
        with pytest.raises(ProviderUnavailable, match="version-compatible"):
            add_engines(half, tmp_path / "out", dataclasses.replace(TWO, version_compatible=True))

    def test_a_checkpoint_in_neither(self, tiny_checkpoint, tmp_path):
        """Known before anything is exported."""
        with pytest.raises(UsageError, match=r"w16a32.*fp16"):
            export_bundle(tiny_checkpoint, tmp_path / "out", precisions=["w16a32"], engines=TWO)

    def test_within_the_bundle(self, half):
        with pytest.raises(UsageError, match=re.escape(str(half / "engines"))):
            add_engines(half, half / "engines", TWO)

    def test_a_file_that_is_written_meanwhile(self, half, tmp_path, monkeypatch):
        real = engines.shutil.copyfile

        def copy(source, target):
            real(source, target)
            with open(target, "ab") as file:
                file.write(b"!")

        monkeypatch.setattr(engines.shutil, "copyfile", copy)
        with pytest.raises(FileRefused, match=re.escape(str(half))):
            add_engines(half, tmp_path / "out", TWO)
        assert list(tmp_path.iterdir()) == []

    def test_a_bundle_with_neither(self):
        manifest = SimpleNamespace(graphs={"generator": {"int8": None, "w16a32": None}})
        with pytest.raises(UsageError, match="--precision fp16"):
            engine_precision(manifest)

    @pytest.mark.parametrize("spoil", [lambda data: data[:-1] + b"!", lambda data: data[:100]])
    def test_a_bundle_that_is_not_whole(self, half, tmp_path, spoil):
        copy = shutil.copytree(half, tmp_path / "copy")
        path = copy / "generator.fp16.onnx"
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(FileRefused, match=r"generator\.fp16\.onnx"):
            add_engines(copy, tmp_path / "out", TWO)


class Test_options:
    def test_as_text(self):
        assert build_options("16,1, 4", "sm86,SM120,8.9") == BuildOptions((16, 1, 4), ("8.6", "12.0", "8.9"))
        assert build_options("1") == BuildOptions((1,))
        assert profiles(build_options("16,1,4")) == (Profile(1, 1, 1), Profile(1, 4, 4), Profile(1, 16, 16))

    @pytest.mark.parametrize(
        "batches", ["", "0", "1,1", "a", "1;4", "-1", "1.5", "1025", "9223372036854775808"]
    )
    def test_batches_that_are_none(self, batches):
        with pytest.raises(UsageError, match=re.escape(batches.split(",")[0])):
            build_options(batches)

    @pytest.mark.parametrize("archs", ["", "ampere", "86", "sm8", "8", "sm86,,"])
    def test_archs_that_are_none(self, archs):
        with pytest.raises(UsageError, match=repr(archs.split(",")[-1])):
            build_options("1", archs)


def test_the_records_are_plain_json(built):
    for path in (built / "engines").glob("*.json"):
        json.loads(path.read_text())
