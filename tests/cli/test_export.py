"""`galip export` and `galip convert`."""

import json

import galip_export
import galip_export.engines
import torch
from galip_runtime.errors import UsageError

import galip.convert


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
    run("export", tiny_checkpoint, "--out", tmp_path / "a")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt", "--precision", "fp16, int8")
    engines = galip_export.BuildOptions()
    assert calls == [(("fp32",), None), (("fp32", "fp16"), engines), (("fp16", "int8"), engines)]


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
