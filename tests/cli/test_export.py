"""`galip export` and `galip convert`."""

import json
import re
import subprocess
import sys

import galip_export
import galip_export.devices
import galip_export.engines
import galip_export.web
import pytest
import torch
from galip_export.precisions import PRECISIONS
from galip_runtime.backends.openvino_runner import openvino_computes_in
from galip_runtime.errors import UsageError

import galip.assets
import galip.convert

runs_int8 = pytest.mark.skipif(not openvino_computes_in("int8"), reason="this CPU does not compute in int8")


def test_engines_of_a_bundle(run, fail, bundle, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(galip_export.engines, "add_engines", lambda *a, **k: calls.append((a, k)) or ())
    out = tmp_path / "out"
    code, output, _ = run(
        "export", bundle, "--trt", "--trt-batch", "2", "--trt-arch", "sm86", "--out", out, "--json"
    )
    assert code == 0
    assert json.loads(output) == {"bundle": str(out), "engines": []}
    (positional, named), options = calls[0], galip_export.BuildOptions((2,), ("8.6",))
    assert (positional, named["overwrite"]) == ((bundle, out, options), False)
    for options in ([], ["--trt", "--precision", "fp16"], ["--trt", "--rewrites", "none"]):
        assert str(bundle) in fail(2, "export", bundle, "--out", out, *options)
    for options in (["--trt-arch", "sm86"], ["--trt-batch", "2"]):
        assert "--trt" in fail(2, "export", "--out", out, *options)
    assert "'ampere'" in fail(2, "export", bundle, "--trt", "--trt-arch", "ampere", "--out", out)
    assert len(calls) == 1


def test_trt_asks_for_fp16(run, tiny_checkpoint, tmp_path, monkeypatch):
    calls = []

    def export(*arguments, precisions, engines, **options):
        calls.append((precisions, engines))
        raise UsageError("enough")

    monkeypatch.setattr(galip_export, "export_bundle", export)
    monkeypatch.setattr(galip_export.engines, "engine_builder", lambda *_: None)  # needs no GPU here
    run("export", tiny_checkpoint, "--out", tmp_path / "a")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt", "--precision", "fp16, w16a32")
    engines = galip_export.BuildOptions()
    assert calls == [(("fp32",), None), (("fp32", "fp16"), engines), (("fp16", "w16a32"), engines)]


@pytest.fixture
def without_openvino(monkeypatch):
    monkeypatch.setattr(galip_export.devices, "available_devices", lambda: ["cpu"])


def test_all_precisions_are_those_of_this_machine(run, tiny_checkpoint, tmp_path, monkeypatch):
    calls = []

    def export(*arguments, precisions, **options):
        calls.append(precisions)
        raise UsageError("enough")

    monkeypatch.setattr(galip_export, "export_bundle", export)
    here = [name for name in PRECISIONS if galip_export.devices.why_not_verifiable(name) is None]
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--precision", "all")
    assert calls == [tuple(here)]
    monkeypatch.setattr(galip_export.devices, "available_devices", lambda: ["cpu"])
    err = run("export", tiny_checkpoint, "--out", tmp_path / "a", "--precision", "all")[2]
    assert calls[1:] == [("fp32", "w16a32", "fp16")]
    assert "bf16" in err
    assert "int8" in err


@pytest.mark.usefixtures("without_openvino")
@pytest.mark.parametrize("precisions", ["bf16", "int8,bf16,fp32", "all,bf16"])
def test_a_precision_that_cannot_be_is_refused_before_the_work(fail, tmp_path, precisions):
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(galip_export, "export_bundle", lambda *_, **__: started.append(1))
        err = fail(5, "export", tmp_path / "x", "--out", tmp_path / "a", "--precision", precisions)
    assert started == []
    assert "fp32, w16a32, fp16" in err
    assert all(name in err for name in precisions.split(",") if name in ("bf16", "int8"))


def test_an_unknown_precision_is_refused_without_pytorch(tmp_path):
    code = f"""
import sys
from galip.cli import main
try:
    main(["export", "x", "--out", {str(tmp_path / "a")!r}, "--precision", "fp64"])
except SystemExit as done:
    print(done.code, [name for name in ("torch", "onnx", "onnxscript") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert "'fp64'" in done.stderr


def test_convert(run, tiny_checkpoint, tmp_path, monkeypatch):
    calls = []

    def convert_released(source, out, **options):
        calls.append((source, out, options))
        out.write_bytes(tiny_checkpoint.read_bytes())

    monkeypatch.setattr(galip.convert, "convert_released", convert_released)
    source, clip, out = tmp_path / "x.pth", tmp_path / "clip.pt", tmp_path / "out.safetensors"
    for file in (source, clip):
        torch.save({}, file)
    code, output, err = run("convert", source, "--clip", clip, "--out", out, "--json")
    assert code == 0
    assert json.loads(output) == {
        "checkpoint": str(out),
        "parts": ["text", "image", "generator", "discriminator"],
    }
    assert err
    assert calls == [(source, out, {"clip": str(clip), "allow_missing_text": False})]


@pytest.fixture
def page(tmp_path, monkeypatch):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").touch()
    monkeypatch.setattr(galip_export.web, "PAGE", folder)


@pytest.mark.usefixtures("page")
def test_a_page_of_a_bundle_and_of_the_shipped_one(run, bundle, tmp_path, monkeypatch):
    out = tmp_path / "site"
    code, output, _ = run("export", bundle, "--web", out, "--json")
    assert code == 0
    report = json.loads(output)
    assert report["web"] == str(out)
    assert report["bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    monkeypatch.setattr(galip.assets, "default_bundle", lambda: bundle)
    assert run("export", "--web", out, "--overwrite")[0] == 0
    assert (out / "bundle" / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


@pytest.mark.usefixtures("page")
def test_a_page_of_a_checkpoint_is_in_w16a32(run, tiny_checkpoint, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(galip_export, "export_bundle", lambda *_, precisions, **__: calls.append(precisions))
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--web", tmp_path / "site")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--precision", "fp32", "--web", tmp_path / "site")
    assert calls == [("w16a32",), ("fp32",)]


@pytest.mark.usefixtures("page")
def test_a_page_that_cannot_be(fail, bundle, tiny_checkpoint, tmp_path):
    assert "--out" in fail(2, "export", bundle)
    assert "--out" in fail(2, "export", tiny_checkpoint, "--web", tmp_path / "site")
    assert "--out" in fail(2, "export", "--precision", "fp32", "--web", tmp_path / "site")
    assert "--overwrite" in fail(2, "export", bundle, "--web", tmp_path)


@runs_int8
def test_int8_that_falls_short(run, fail, tiny_checkpoint, tmp_path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    asked = ["export", tiny_checkpoint, "--int8-psnr", "100"]
    code, output, _ = run(*asked, "--precision", "fp32,int8", "--out", out)
    assert code == 0
    assert re.search(r"without int8: int8 does not reach the 100 dB.* dB with ", output)
    assert sorted(path.name for path in out.glob("*.onnx")) == ["generator.onnx", "text_encoder.onnx"]
    assert "int8 does not reach" in fail(3, *asked, "--precision", "int8", "--out", alone)
    assert not alone.exists()


@runs_int8
def test_the_curve_of_int8(run, tiny_checkpoint, tmp_path):
    asked = ["export", tiny_checkpoint, "--int8-psnr", "22", "--precision", "int8", "--overwrite", "--out"]
    code, output, _ = run(*asked, tmp_path / "out")
    assert code == 0
    assert re.search(r"int8 is [\d.]+% of the multiply-adds, for 22 dB.*: .*[\d.]+% [\d.]+ dB", output)
    int8 = json.loads(run(*asked, tmp_path / "out", "--json")[1])["int8"]
    assert int8["goal_db"] == 22
    assert int8["share"] in [point["share"] for point in int8["curve"]]
