"""A typo in a path, a tag or an option is found before PyTorch is imported, which takes seconds."""

import importlib.machinery
import json
import subprocess
import sys

import pytest
import torch
from galip_runtime.errors import ProviderUnavailable, UsageError
from runtime.stub_bundle import make_stub_bundle
from train.layout_fixtures import write_shards

from galip import torch_build
from galip.checkpoint import save_galip
from galip.eager import load_eager
from galip.early_checks import TRAIN_ON_CPU, USE_CPU, check_run
from galip.model import Galip
from galip.presets import preset
from galip.train.fabric import choose_device

SCRIPT = """
import contextlib, io, json, sys
from galip.cli import main

results = []
for line in json.load(sys.stdin):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            main(line)
        except SystemExit as done:
            code = done.code
    results.append([code, err.getvalue(), [name for name in ("torch", "open_clip") if name in sys.modules]])
print(json.dumps(results))
"""

TRAIN = ["train", "--out", "run", "--model", "tiny"]
TRAIN_SHARDS = [*TRAIN, "--data", "shards", "--clip", "tiny.safetensors"]
TRAIN_CLIP = ["train-clip", "--out", "run", "--model", "tiny"]
BENCH = ["bench", "--model", "tiny.safetensors", "--bundle", "bundle"]
MISTAKES = [
    (4, "nope.pth", ["convert", "nope.pth", "--clip", "clip.pt", "--out", "o.safetensors"]),
    (4, "page.pth", ["convert", "page.pth", "--clip", "clip.pt", "--out", "o.safetensors"]),
    (4, "nope.pt", ["convert", "clip.pt", "--clip", "nope.pt", "--out", "o.safetensors"]),
    (4, "page.pth", ["convert", "clip.pt", "--clip", "page.pth", "--out", "o.safetensors"]),
    (2, "opnai", ["convert", "clip.pt", "--clip", "opnai", "--out", "o.safetensors"]),
    (2, "ViT-B-23", ["convert", "clip.pt", "--clip", "ViT-B-23:openai", "--out", "o.safetensors"]),
    (2, "--clip", ["convert", "clip.pt", "--out", "o.safetensors"]),
    (4, "nope.pt", [*TRAIN, "--data", "photos", "--clip", "nope.pt"]),
    (4, "photos", [*TRAIN, "--data", "photos", "--clip", "photos"]),
    (2, "opnai", [*TRAIN, "--data", "photos", "--clip", "opnai"]),
    (2, "nope", [*TRAIN, "--data", "nope", "--clip", "tiny.safetensors"]),
    (2, "'coc'", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--layout", "coc"]),
    (2, "tiny.safetensors", ["train", "--data", "photos", "--clip", "tiny.safetensors", "--out", "run"]),
    (4, "nope.st", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--init", "nope.st"]),
    (2, "huge", ["train", "--data", "photos", "--clip", "clip.pt", "--out", "run", "--model", "huge"]),
    (2, "other", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--evaluate-every", "1",
                  "--evaluate-against", "other"]),
    (2, "run holds no run", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--resume"]),
    (2, "nope", ["train-clip", "--data", "nope", "--out", "run"]),
    (2, "'coc'", ["train-clip", "--data", "photos", "--out", "run", "--layout", "coc"]),
    (2, "empty", ["train-clip", "--data", "empty", "--out", "run"]),
    (2, "huge", ["train-clip", "--data", "photos", "--out", "run", "--model", "huge"]),
    (4, "nope.pt", ["train-clip", "--data", "photos", "--out", "run", "--init", "nope.pt"]),
    (2, "other towers", [*TRAIN_CLIP, "--data", "photos", "--init", "default"]),
    (4, "nope", ["evaluate", "nope", "--against", "photos"]),
    (4, "page.pth", ["evaluate", "page.pth", "--against", "photos"]),
    (2, "nope", ["evaluate", "photos", "--against", "nope"]),
    (4, "nope.npz", ["evaluate", "photos", "--against", "nope.npz"]),
    (2, "'coc'", ["evaluate", "photos", "--against", "photos", "--layout", "coc"]),
    (2, "opnai", ["evaluate", "photos", "--against", "photos", "--clip", "opnai"]),
    (2, "fdi", ["evaluate", "photos", "--against", "photos", "--metrics", "fdi"]),
    (2, "cleen", ["evaluate", "photos", "--against", "photos", "--protocol", "cleen"]),
    (2, "nope.txt", ["evaluate", "tiny.safetensors", "--against", "photos", "--captions", "nope.txt"]),
    (4, "nope.pt", ["evaluate", "photos", "--against", "photos", "--metrics", "fid",
                    "--inception", "nope.pt"]),
    (2, "cudda", ["evaluate", "tiny.safetensors", "--against", "photos", "--device", "cudda"]),
    (4, "nope", ["export", "nope", "--out", "b"]),
    (4, "page.pth", ["export", "page.pth", "--out", "b"]),
    (2, "fp17", ["export", "tiny.safetensors", "--precision", "fp17", "--out", "b"]),
    (2, "exat", ["export", "tiny.safetensors", "--rewrites", "exat", "--out", "b"]),
    (2, "--precision", ["export", "tiny.safetensors", "--int8-psnr", "40", "--out", "b"]),
    (4, "nope", ["generate", "x", "--bundle", "nope", "--out", "x.png"]),
    (4, "nope", ["generate", "x", "--model", "nope", "--out", "x.png"]),
    (2, "fp61", ["generate", "x", "--model", "tiny.safetensors", "--precision", "fp61", "--out", "x.png"]),
    (4, "nope", ["interpolate", "a", "b", "--model", "nope", "--out", "x.png"]),
    (4, "nope", ["sample-grid", "a", "--model", "nope", "--out", "x.png"]),
    (2, "nope", ["data", "check", "nope"]),
    (2, "'coc'", ["data", "check", "photos", "--layout", "coc"]),
    (4, "nope", ["info", "nope"]),
    (0, "", ["info", "tiny.safetensors"]),
    (4, "nope", ["bench", "--bundle", "nope"]),
    (4, "nope", ["bench", "--plain-bundle", "nope"]),
    (2, "nope", ["bench", "--model", "nope"]),
    (2, "nope", ["bench", "--fid", "100", "--against", "nope"]),
    (2, "nope.txt", ["bench", "--fid", "100", "--captions", "nope.txt"]),
    (4, "nope.pt", ["bench", "--inception", "nope.pt"]),
    (2, "cannot write to page.pth", ["convert", "clip.pt", "--clip", "clip.pt", "--out", "page.pth/o"]),
    (2, "width>", [*TRAIN_SHARDS, "--exclude", "width>"]),
    (2, "batch_size is 7", [*TRAIN_SHARDS, "--batch-size", "7", "--accumulate", "2"]),
    (2, "prompt 0", [*TRAIN_SHARDS, "--sample-prompts", "x" * 100_001]),
    (2, "'tset'", [*TRAIN_SHARDS, "--evaluate-every", "1", "--evaluate-split", "tset"]),
    (2, "'tset'", [*TRAIN_SHARDS, "--evaluate-every", "1", "--evaluate-against", "photos",
                   "--evaluate-split", "tset"]),
    (2, "3 shards", [*TRAIN_SHARDS, "--stream", "yes", "--workers", "4"]),
    (2, "photos is of layout folder", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors",
                                       "--stream", "yes"]),
    (2, "val", [*TRAIN, "--data", "val_only", "--clip", "tiny.safetensors"]),
    (2, "cannot write to page.pth", ["train", "--out", "page.pth", *TRAIN_SHARDS[3:]]),
    (2, "another shape", [*TRAIN_SHARDS, "--init", "other.safetensors"]),
    (2, "width>", ["train-clip", "--data", "shards", "--out", "run", "--exclude", "width>"]),
    (2, "cannot write to page.pth/run", ["train-clip", "--data", "shards", "--out", "page.pth/run"]),
    (2, "'fp16'", ["evaluate", "bundle", "--against", "photos", "--precision", "fp16"]),
    (2, "'tset'", ["evaluate", "photos", "--against", "shards", "--split", "tset"]),
    (2, "'tset'", ["evaluate", "tiny.safetensors", "--against", "photos", "--split", "tset"]),
    (2, "width>", ["evaluate", "tiny.safetensors", "--against", "shards", "--exclude", "width>"]),
    (2, "seed_psnr", ["evaluate", "photos", "--against", "photos", "--metrics", "seed_psnr"]),
    (2, "need a CLIP", ["evaluate", "bundle", "--against", "photos"]),
    (2, "statistics only", ["evaluate", "tiny.safetensors", "--against", "x.npz", "--metrics", "kid"]),
    (2, "clip.pt", ["evaluate", "tiny.safetensors", "--against", "photos", "--captions", "clip.pt"]),
    (2, "threads", ["evaluate", "tiny.safetensors", "--against", "photos", "--threads", "0"]),
    (2, "bundle exists already", ["export", "tiny.safetensors", "--out", "bundle"]),
    (2, "photos is neither", ["export", "tiny.safetensors", "--out", "photos", "--overwrite"]),
    (2, "page.pth is a file", ["export", "tiny.safetensors", "--out", "page.pth"]),
    (2, "cannot write to", ["export", "tiny.safetensors", "--out", "page.pth/b"]),
    (2, "bundle is a bundle", ["export", "bundle", "--out", "b"]),
    (2, "inside the bundle", ["export", "bundle", "--out", "bundle/b", "--trt"]),
    (2, "threads", ["generate", "x", "--model", "tiny.safetensors", "--threads", "0", "--out", "x.png"]),
    (2, "x.png would", ["generate", "x", "--model", "tiny.safetensors", "--count", "999999", "--out",
                           "x.png"]),
    (2, "prompt 0", ["generate", "x" * 100_001, "--model", "tiny.safetensors", "--out", "x.png"]),
    (2, "x.png would be", ["interpolate", "a", "b", "--model", "tiny.safetensors", "--steps", "99999",
                           "--out", "x.png"]),
    (2, "x.png would be", ["sample-grid", "a", "--model", "tiny.safetensors", "--count", "99999", "--out",
                           "x.png"]),
    (2, "'tset'", ["data", "check", "shards", "--split", "tset"]),
    (2, "the folder no ", ["data", "check", "photos", "--sheet", "no/x.png"]),
    (2, "no subject nope", [*BENCH, "--subjects", "nope"]),
    (2, "no subject nope", ["bench", "--subjects", "bundle-cpu-fp32,nope"]),
    (2, "no subject plain-cpu-fp32", [*BENCH, "--subjects", "plain-cpu-fp32"]),
    (2, "no subject bundle-cpu-int8", [*BENCH, "--subjects", "bundle-cpu-int8"]),
    (5, "bundle-tensorrt-w16a32 can't", ["bench", "--bundle", "half", "--model", "tiny.safetensors",
                                         "--subjects", "bundle-tensorrt-w16a32"]),
    (2, "'tset'", [*BENCH, "--fid", "100", "--against", "shards", "--split", "tset"]),
    (2, "width>", [*BENCH, "--fid", "100", "--against", "shards", "--exclude", "width>"]),
    (2, "clip.pt", [*BENCH, "--fid", "100", "--captions", "clip.pt"]),
    (2, "the folder no ", [*BENCH, "--html", "no/x.html"]),
    (4, "page.pth", ["bench", "--repeat", "page.pth"]),
]  # fmt: skip
"""Exit code, what stderr names, and the command line."""

if not torch_build.may_have_cuda():
    MISTAKES += [
        (5, "no CUDA device", [*TRAIN_SHARDS, "--device", "cuda"]),
        (5, "no CUDA device", ["train-clip", "--data", "shards", "--out", "run", "--device", "cuda"]),
        (5, "no CUDA device", ["evaluate", "tiny.safetensors", "--against", "photos", "--device", "cuda"]),
        (5, "no CUDA device", ["generate", "x", "--model", "tiny.safetensors", "--device", "cuda", "--out",
                               "x.png"]),
        (5, "eager-fp16 can't", [*BENCH, "--subjects", "eager-fp16"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("typos")
    (folder / "photos").mkdir()
    (folder / "empty").mkdir()
    (folder / "photos" / "a.txt").write_text("a bird")
    (folder / "photos" / "a.png").write_bytes(b"")
    (folder / "page.pth").write_text("<html>404</html>")
    torch.save({"visual.proj": torch.ones(2)}, folder / "clip.pt")
    (folder / "tiny.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    save_galip(folder / "other.safetensors", Galip(preset("default-64")))
    write_shards(folder / "shards")
    (folder / "val_only").mkdir()
    (folder / "val_only" / "val-00000.tar").write_bytes(b"")
    (folder / "x.npz").write_bytes(b"")
    make_stub_bundle(folder / "bundle")
    make_stub_bundle(folder / "half", precisions=("fp32", "w16a32"))
    before = sorted(folder.rglob("*"))
    lines = json.dumps([line for _, _, line in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=lines, cwd=folder, capture_output=True, text=True, check=True
    )
    assert sorted(folder.rglob("*")) == before
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=lambda index: " ".join(MISTAKES[index][2])[:60])
def test_a_typo_does_not_wait_for_torch(outcomes, index):
    code, value, _ = MISTAKES[index]
    actual, err, imported = outcomes[index]
    assert (actual, imported) == (code, []), err
    assert value in err


def test_a_run_that_is_there_already(tmp_path):
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "0000010.pt").write_bytes(b"")
    check_run(tmp_path, resume=True)
    with pytest.raises(UsageError, match=str(tmp_path)):
        check_run(tmp_path, resume=False)


VERSION = "__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n"


@pytest.mark.parametrize(
    ("version", "driver", "devices", "expected"),
    [
        (VERSION.format(cuda="None", hip="None"), True, ["nvidia0"], False),
        (VERSION.format(cuda="'13.0'", hip="None"), False, ["null", "nvme0"], False),
        (VERSION.format(cuda="'13.0'", hip="None"), True, ["null"], True),
        (VERSION.format(cuda="'13.0'", hip="None"), False, ["nvidiactl"], True),
        (VERSION.format(cuda="'13.0'", hip="None"), False, ["dxg"], True),
        (VERSION.format(cuda="None", hip="'7.0'"), False, ["null"], True),
        ("__version__ = '2.13.0'", False, ["null"], True),
        (None, False, ["null"], True),
    ],
)
def test_only_what_surely_has_no_cuda_is_refused(tmp_path, monkeypatch, version, driver, devices, expected):
    def driver_cuda_version():
        if not driver:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return "13.0"

    if version is not None:
        (tmp_path / "version.py").write_text(version)
    spec = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(torch_build, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch_build, "driver_cuda_version", driver_cuda_version)
    monkeypatch.setattr(torch_build.os, "listdir", lambda folder: devices)
    monkeypatch.setattr(torch_build.sys, "platform", "linux")
    assert torch_build.may_have_cuda() is expected


def test_pytorch_with_a_device_is_never_refused():
    assert torch_build.may_have_cuda() or not torch.cuda.is_available()


def test_without_cuda_the_error_is_the_same_before_and_after_pytorch(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch_build, "may_have_cuda", lambda: False)
    for late, advice in (
        (lambda: load_eager(tiny_checkpoint, "cuda"), USE_CPU),
        (lambda: choose_device("cuda"), TRAIN_ON_CPU),
    ):
        with pytest.raises(ProviderUnavailable) as after:
            late()
        with pytest.raises(ProviderUnavailable) as before:
            torch_build.check_cuda("cuda", advice)
        assert str(before.value) == str(after.value)
    torch_build.check_cuda("auto", USE_CPU)
