"""`export_bundle`: what it writes, what it refuses, and that it leaves nothing half-done behind."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
from importlib.metadata import version
from pathlib import Path

import galip_runtime
import numpy as np
import onnx
import pytest
import torch
from galip_export import export as export_module
from galip_export import export_bundle, staging
from galip_export.progress import Stage
from galip_runtime import FileRefused, QualityGateFailed, UsageError
from galip_runtime.bundle.manifest import read_manifest, sha256_file, verify_files
from onnx import numpy_helper

from galip.checkpoint import save_clip, save_galip
from galip.clip import build_clip, clip_tokenizer

FILES = ["generator.onnx", "manifest.json", "merges.txt.gz", "parity.json", "text_encoder.onnx"]


@pytest.fixture
def out(tmp_path):
    """Where a test exports to; the folder around it is otherwise empty."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder / "bundle"


@pytest.fixture
def traced(tiny_export, monkeypatch):
    """Exports that take the graphs traced once already; the test may alter them."""
    graphs = types.SimpleNamespace(
        text_encoder=onnx.load(tiny_export.bundle / "text_encoder.onnx"),
        generator=onnx.load(tiny_export.bundle / "generator.onnx"),
    )
    monkeypatch.setattr(export_module, "export_text_encoder", lambda model: graphs.text_encoder)
    monkeypatch.setattr(export_module, "export_generator", lambda model, rewrites: graphs.generator)
    return graphs


def alter(proto, name, change):
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_files(tiny_export, tiny_checkpoint):
    folder = tiny_export.bundle
    assert contents(folder) == FILES
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    assert sorted(manifest.files) == [name for name in FILES if name != "manifest.json"]
    assert (manifest.source.name, manifest.source.sha256) == (
        "tiny.safetensors",
        sha256_file(tiny_checkpoint),
    )
    assert manifest.model["generator"]["sizes"] == [8, 16, 28]
    assert manifest.graphs["generator"]["fp32"].opset == 18
    assert manifest.versions["torch"] == version("torch")
    assert manifest.versions.keys() >= {
        "galip",
        "galip-runtime",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "python",
    }
    assert not any(word in (folder / "manifest.json").read_text() for word in ("/tmp", "/home", "/root"))


def test_the_report(tiny_export):
    data = json.loads(json.dumps(tiny_export.to_dict()))
    assert [entry["graph"] for entry in data["graphs"]] == ["text_encoder", "generator"]
    for entry in data["graphs"]:
        assert entry["size"] == (tiny_export.bundle / entry["file"]).stat().st_size
        assert 0 < entry["parity"]["relative"] <= 1e-4


def test_what_was_measured_goes_with_the_bundle(tiny_export):
    parity = json.loads((tiny_export.bundle / "parity.json").read_text())
    assert parity["gates"] == {"fp32": {"relative": 1e-4, "psnr_db": None}}
    assert parity["pictures"] == []
    for graph, device in itertools.product(("text_encoder", "generator"), ("cpu", "openvino")):
        cases = [case for case in parity["cases"] if (case["graph"], case["device"]) == (graph, device)]
        assert sorted(case["batch"] for case in cases) == [1, 2, 3, 5]
        assert all(0 < case["relative"] <= 1e-4 for case in cases)
        assert all(case["psnr_db"] > 90 and case["cosine"] > 0.99999 for case in cases)


def test_the_runtime_makes_the_model_s_pictures(tiny_export, tiny_model):
    runtime = galip_runtime.load(tiny_export.bundle, device="cpu")
    captions = ["a green house", "", "a red apple " * 40, "🍎"]
    tokens = torch.from_numpy(clip_tokenizer(64, 16).encode(captions))
    noise = runtime.noise([1, 2, 3, 4])
    with torch.inference_mode():
        sentence = tiny_model.text(tokens)
        image = tiny_model.generator(torch.from_numpy(noise), sentence).numpy()
    np.testing.assert_allclose(runtime.encode_text(captions), sentence.numpy(), atol=1e-5)
    ours = runtime.decode(noise, runtime.encode_text(captions))
    assert np.abs(ours - image).max() < 1e-4 * image.std()
    assert runtime.generate(captions, seeds=[1, 2, 3, 4]).shape == (4, 28, 28, 3)


SAME_AGAIN = """
import sys
from pathlib import Path
from galip_export import export_bundle
export_bundle(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_the_same_checkpoint_gives_the_same_graphs(small_model, tmp_path):
    checkpoint = tmp_path / "small.safetensors"
    save_galip(checkpoint, small_model(), dtype=torch.float16)  # as the shipped model is
    here, there = tmp_path / "here", tmp_path / "there"
    export_bundle(checkpoint, here)
    subprocess.run(
        [sys.executable, "-c", SAME_AGAIN, str(checkpoint), str(there)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=tmp_path,
        check=True,
    )
    for name in ("text_encoder.onnx", "generator.onnx", "merges.txt.gz"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_progress(traced, tiny_checkpoint, out):
    calls = []
    export_bundle(tiny_checkpoint, out, progress=lambda *call: calls.append(call))
    for stage, steps in itertools.groupby(calls, key=lambda call: call[0]):
        done, totals = zip(*((done, total) for _, done, total in steps), strict=True)
        assert len(set(totals)) == 1, stage
        assert done == tuple(range(totals[0] + 1)) or done == (0,), stage
    assert calls[0] == ("reading the checkpoint", 0, 1)
    assert ("verifying fp32 on cpu", 8, 8) in calls
    assert calls[-1] == ("done", 1, 1)


def test_a_stage_with_more_steps_than_it_said():
    calls = []
    stage = Stage(lambda *call: calls.append(call), "counting", 1)
    stage.advance()
    stage.advance()
    assert calls == [("counting", 0, 1), ("counting", 1, 1), ("counting", 2, 2)]


# What must not become a bundle


def break_generator(values):
    values.ravel()[0] += 0.01


@pytest.mark.parametrize(
    ("graph", "weight", "change"),
    [
        ("generator", "to_rgb.bias", break_generator),
        ("generator", "conditioning.second_biases.1", break_generator),
        ("generator", "to_rgb.bias", lambda values: values.fill(np.nan)),
        ("text_encoder", "positional_embedding", lambda values: np.negative(values, out=values)),
        ("text_encoder", "ln_final.bias", lambda values: values.fill(np.inf)),
    ],
)
def test_a_wrong_weight_means_no_bundle(traced, tiny_checkpoint, out, graph, weight, change):
    alter(getattr(traced, graph), weight, change)
    with pytest.raises(QualityGateFailed, match=graph) as error:
        export_bundle(tiny_checkpoint, out)
    assert error.value.exit_code == 3
    assert contents(out.parent) == []


def test_a_frozen_batch_means_no_bundle(traced, tiny_checkpoint, out):
    """A graph that only runs with the batch it was traced with."""
    name = next(
        node.input[1] for node in traced.generator.graph.node if node.name.startswith("conditioning/Reshape")
    )

    def freeze(values):
        values[0] = 2

    alter(traced.generator, name, freeze)
    with pytest.raises(QualityGateFailed):
        export_bundle(tiny_checkpoint, out)
    assert contents(out.parent) == []


def test_a_model_that_gives_nan(traced, tiny_model, tmp_path, out):
    state = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    checkpoint = tmp_path / "diverged.safetensors"
    try:
        tiny_model.generator.to_rgb.weight.data.fill_(3e38)
        save_galip(checkpoint, tiny_model)
    finally:
        tiny_model.load_state_dict(state)
    with pytest.raises(QualityGateFailed, match=r"NaN.*generator"):
        export_bundle(checkpoint, out)
    assert contents(out.parent) == []


# Checkpoints


def test_checkpoints_that_are_refused(tiny_model, tiny_checkpoint, tmp_path, out):
    data = tiny_checkpoint.read_bytes()
    bad = {
        "missing": None,
        "empty": b"",
        "cut": data[:-100],
        "cut_in_the_head": data[:50],
        "text": b"not a checkpoint at all",
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FileRefused):
            export_bundle(path, out)
    clip = tmp_path / "clip.safetensors"
    save_clip(clip, build_clip(tiny_model.config.clip), tiny_model.config.clip)
    with pytest.raises(FileRefused, match=re.escape(str(clip))):
        export_bundle(clip, out)
    without = tmp_path / "without.safetensors"
    save_galip(without, tiny_model, parts=("generator",))
    with pytest.raises(FileRefused, match=re.escape(str(without))):
        export_bundle(without, out)
    assert contents(out.parent) == []


def test_unknown_precisions(tiny_checkpoint, out):
    for precisions, unknown in (
        (("fp17",), "fp17"), (("fp32", "int4"), "int4"), ("fp8", "fp8"), ((), "fp32"), ("", "''"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=unknown):
            export_bundle(tiny_checkpoint, out, precisions=precisions)
    assert contents(out.parent) == []


# Where it goes


def test_an_existing_bundle_stays_without_overwrite(traced, tiny_checkpoint, tiny_export, out):
    shutil.copytree(tiny_export.bundle, out)
    (out / "parity.json").write_text("marked")
    with pytest.raises(UsageError, match=re.escape(str(out))):
        export_bundle(tiny_checkpoint, out)
    assert (out / "parity.json").read_text() == "marked"
    export_bundle(tiny_checkpoint, out, overwrite=True)
    galip_runtime.load(out, device="cpu")
    assert contents(out) == FILES
    assert contents(out.parent) == ["bundle"]


def test_an_empty_folder_may_be_overwritten(traced, tiny_checkpoint, out):
    out.mkdir()
    with pytest.raises(UsageError, match=re.escape(str(out))):
        export_bundle(tiny_checkpoint, out)
    export_bundle(tiny_checkpoint, out, overwrite=True)
    assert contents(out) == FILES


def test_other_people_s_files_are_never_deleted(tiny_checkpoint, tiny_export, out):
    out.mkdir()
    (out / "thesis.txt").write_text("three years")
    with pytest.raises(UsageError, match=re.escape(str(out))):
        export_bundle(tiny_checkpoint, out, overwrite=True)
    assert contents(out) == ["thesis.txt"]
    shutil.rmtree(out)
    shutil.copytree(tiny_export.bundle, out)
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes/mine\.txt"):
        export_bundle(tiny_checkpoint, out, overwrite=True)
    assert contents(out) == sorted([*FILES, "notes"])
    file = out.parent / "file"
    file.write_text("a file")
    with pytest.raises(UsageError, match=re.escape(str(file))):
        export_bundle(tiny_checkpoint, file, overwrite=True)
    link = out.parent / "link"
    link.symlink_to(tiny_export.bundle)
    with pytest.raises(UsageError, match=re.escape(str(link))):
        export_bundle(tiny_checkpoint, link, overwrite=True)


def test_a_place_that_cannot_be_written_to_is_known_before_the_work(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "load_galip", lambda *args, **kwargs: pytest.fail("work was begun"))
    file = tmp_path / "file"
    file.write_text("a file")
    places = [file / "bundle", tmp_path / ("n" * 300)]
    if os.path.isdir("/proc/self"):  # not even root may make a folder there
        places.append("/proc/galip/bundle")
    for place in places:
        with pytest.raises(UsageError, match=re.escape(str(place))):
            export_bundle(tiny_checkpoint, place)
    assert contents(tmp_path) == ["file"]


def test_a_full_disk_is_known_before_the_work(tiny_checkpoint, out, monkeypatch):
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(UsageError, match=re.escape(str(out.parent))):
        export_bundle(tiny_checkpoint, out)
    assert contents(out.parent) == []


def test_a_disk_that_fills_up(traced, tiny_checkpoint, out, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, data):
        if path.name == "generator.onnx":
            write_bytes(path, data[:10])
            raise OSError(28, os.strerror(28))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=os.strerror(28)):
        export_bundle(tiny_checkpoint, out)
    assert contents(out.parent) == []


def test_missing_folders_are_made_and_unmade(traced, tiny_checkpoint, out):
    deep = out / "a" / "b"
    export_bundle(tiny_checkpoint, deep)
    assert contents(deep) == FILES
    shutil.rmtree(out)
    alter(traced.generator, "to_rgb.bias", break_generator)
    with pytest.raises(QualityGateFailed):
        export_bundle(tiny_checkpoint, deep)
    assert contents(out.parent) == []


# Two at once, and interruptions


def test_two_exports_to_one_place(traced, tiny_checkpoint, out):
    results = []

    def export():
        try:
            results.append(export_bundle(tiny_checkpoint, out))
        except UsageError as error:
            results.append(error)

    threads = [threading.Thread(target=export) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [result for result in results if isinstance(result, UsageError)]
    assert len(results) == 2
    assert len(failed) == 1
    galip_runtime.load(out, device="cpu")
    assert contents(out.parent) == ["bundle"]


def test_another_export_comes_first(traced, tiny_checkpoint, tiny_export, out):
    def progress(stage, done, total):
        if stage == "finishing":
            shutil.copytree(tiny_export.bundle, out)

    with pytest.raises(UsageError, match=re.escape(str(out))):
        export_bundle(tiny_checkpoint, out, progress=progress)
    galip_runtime.load(out, device="cpu")
    assert contents(out.parent) == ["bundle"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_export_slips_in_between_the_renames(
    traced, tiny_checkpoint, tiny_export, out, monkeypatch, overwrite
):
    rename = os.rename
    if overwrite:
        shutil.copytree(tiny_export.bundle, out)
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)

    def slip_in(source, target):
        if str(target) == str(out) and not out.exists():
            shutil.copytree(tiny_export.bundle, out)
        rename(source, target)

    monkeypatch.setattr(staging.os, "rename", slip_in)
    with pytest.raises(UsageError, match=re.escape(str(out))):
        export_bundle(tiny_checkpoint, out, overwrite=overwrite)
    galip_runtime.load(out, device="cpu")
    assert contents(out.parent) == ["bundle"]


def test_the_old_bundle_comes_back(traced, tiny_checkpoint, tiny_export, out, monkeypatch):
    rename = os.rename
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    shutil.copytree(tiny_export.bundle, out)
    (out / "parity.json").write_text("marked")

    def fail_once(source, target):
        if str(target) == str(out):
            monkeypatch.setattr(staging.os, "rename", rename)
            raise OSError(5, os.strerror(5))
        rename(source, target)

    monkeypatch.setattr(staging.os, "rename", fail_once)
    with pytest.raises(UsageError, match=os.strerror(5)):
        export_bundle(tiny_checkpoint, out, overwrite=True)
    assert (out / "parity.json").read_text() == "marked"
    assert contents(out.parent) == ["bundle"]


@pytest.mark.parametrize(
    "stage", ["reading", "exporting the text", "exporting the gen", "verifying", "finishing"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_leaves_things_as_they_were(traced, tiny_checkpoint, tiny_export, out, stage, overwrite):
    if overwrite:
        shutil.copytree(tiny_export.bundle, out)

    def progress(what, done, total):
        if what.startswith(stage):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_checkpoint, out, overwrite=overwrite, progress=progress)
    assert contents(out.parent) == (["bundle"] if overwrite else [])
    assert not overwrite or contents(out) == FILES


def test_ctrl_c_while_the_folders_are_renamed_waits(traced, tiny_checkpoint, out, monkeypatch):
    rename = os.rename

    def interrupted(source, target):
        signal.raise_signal(signal.SIGINT)
        rename(source, target)

    monkeypatch.setattr(staging.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_checkpoint, out)
    galip_runtime.load(out, device="cpu")
    assert contents(out.parent) == ["bundle"]


def test_signal_handlers_are_put_back(traced, tiny_checkpoint, out):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    export_bundle(tiny_checkpoint, out)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


INTERRUPTED = """
import sys
from pathlib import Path
from galip_export import export_bundle
export_bundle(Path(sys.argv[1]), Path(sys.argv[2]),
              progress=lambda what, done, total: print(what, file=sys.stderr, flush=True))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_tracing_leaves_nothing(tiny_checkpoint, out, number):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tiny_checkpoint), str(out)], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            if line.startswith("exporting the text"):
                break
        assert contents(out.parent) != []
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=300) != 0
    finally:
        process.kill()
        process.wait()
    assert "verifying" not in rest
    assert contents(out.parent) == []
