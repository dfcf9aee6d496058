"""OpenVINO's runner: pictures, its cache of compiled graphs, and errors."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import galip_runtime
import galip_runtime.cache as cache_module
import numpy as np
import onnx
import pytest
from error_checks import assert_names, expect_error, warnings_of
from galip_runtime import FileRefused, ProviderUnavailable, loading
from galip_runtime.backends import libraries, openvino_runner
from galip_runtime.backends.tables import PRECISIONS
from galip_runtime.cache import cache_folder, write_cached
from galip_runtime.install import install_extra, requirements
from stub_bundle import relist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    cache_module._reasons.clear()
    return cache_folder("openvino")


@pytest.fixture
def pictures(bundle):
    return galip_runtime.load(bundle, device="cpu").generate(["red", "a pan"], [1, 2])


def load(bundle, **options):
    return galip_runtime.load(bundle, device="openvino", **options)


def test_pictures_with_and_without_the_cache(bundle, cache, pictures, monkeypatch):
    model = load(bundle)
    assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert model.info()["providers"]["generator"] == model.info()["providers"]["text_encoder"]
    assert model.info()["providers"]["generator"][0].startswith("OpenVINO 20")
    assert "openvino" in model.info()["versions"]
    assert len(list(cache.glob("*.blob"))) == 3  # the text encoder, the sentence's part, the generator
    monkeypatch.setattr(openvino_runner.OpenvinoRunner, "_compile", lambda *_: pytest.fail("compiled again"))
    again = load(bundle)
    assert (again.generate(["red", "a pan"], [1, 2]) == model.generate(["red", "a pan"], [1, 2])).all()


def test_one_blob_for_each_graph_and_precision(shared_bundle, cache):
    load(shared_bundle)
    load(shared_bundle, threads=1)
    assert len(list(cache.iterdir())) == 3
    if openvino_runner.openvino_computes_in("bf16"):
        load(shared_bundle, precision="bf16")
        assert len(list(cache.iterdir())) == 5  # both use the text encoder in fp32


DAMAGES = {
    "cut": lambda data: data[:-9],
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no head": lambda data: data[100:],
    "head alone": lambda data: data[:4096],
    "zeros": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[:-4096] + bytes(4096),
    "garbage": lambda data: b"x" * len(data),
    "longer": lambda data: data + b"x",
    "a bit of the head": lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
    "a bit": lambda data: data[:-999] + bytes([data[-999] ^ 64]) + data[-998:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_blob_is_compiled_again(bundle, cache, pictures, damage, caplog):
    load(bundle)
    for blob in cache.iterdir():
        blob.write_bytes(DAMAGES[damage](blob.read_bytes()))
    assert np.abs(load(bundle).generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert_one_warning_for_each_blob(caplog, cache)
    caplog.clear()
    load(bundle)
    assert caplog.text == ""


def assert_one_warning_for_each_blob(caplog, cache):
    blobs = list(cache.glob("*.blob"))
    warnings = warnings_of(caplog)
    assert len(blobs) == len(warnings) == 3
    assert all(any(str(blob) in warning for warning in warnings) for blob in blobs)


def test_a_blob_that_openvino_rejects_is_compiled_again(bundle, cache, pictures, caplog):
    load(bundle)
    for blob in cache.iterdir():
        write_cached(blob, b"of another version")
    assert np.abs(load(bundle).generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert_one_warning_for_each_blob(caplog, cache)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("name", [".", "..", "blobs"])
def test_blobs_that_others_may_have_written_are_not_used(bundle, cache, pictures, name, monkeypatch):
    load(bundle)
    for path in cache.iterdir() if name == "blobs" else [cache / name]:
        path.chmod(0o777)
    original, results = openvino_runner.OpenvinoRunner._imported, []

    def record(*arguments):
        results.append(original(*arguments))
        return results[-1]

    monkeypatch.setattr(openvino_runner.OpenvinoRunner, "_imported", record)
    assert np.abs(load(bundle).generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert results == ([None] * 3 if name == "blobs" else [])


@pytest.mark.parametrize("name", ["openvino", "."])
def test_a_file_in_place_of_the_cache(bundle, cache, pictures, caplog, name):
    folder = cache if name == "openvino" else cache.parent
    shutil.rmtree(folder)
    folder.write_text("")
    assert load(bundle).generate(["red", "a pan"], [1, 2]).shape == pictures.shape
    (warning,) = warnings_of(caplog)
    assert str(folder) in warning


def test_a_full_disk(bundle, cache, pictures, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    assert load(bundle).generate(["red", "a pan"], [1, 2]).shape == pictures.shape
    (warning,) = warnings_of(caplog)
    assert_names(warning, "No space left on device")
    assert str(cache) in warning
    assert list(cache.iterdir()) == []


def test_the_blobs_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_runner, "_CACHE_BYTES", 30)
    for age, size in enumerate((10, 5, 20, 1)):
        path = tmp_path / f"{age}.blob"
        path.write_bytes(b"x" * size)
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "other").write_text("x" * 100)
    openvino_runner._make_room(tmp_path / "3.blob")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.blob", "1.blob", "3.blob", "other"]


def test_the_size_of_the_cache_is_limited(bundle, cache, monkeypatch):
    monkeypatch.setattr(openvino_runner, "_CACHE_BYTES", 0)
    load(bundle)
    assert len(list(cache.iterdir())) == 1  # the newest


def test_a_read_only_cache_is_used(bundle, cache, monkeypatch, caplog):
    load(bundle)
    monkeypatch.setattr(openvino_runner.OpenvinoRunner, "_compile", lambda *_: pytest.fail("compiled again"))

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(openvino_runner.os, "utime", refuse)
    load(bundle)
    assert caplog.text == ""


def test_a_graph_changed_during_loading_is_not_cached(bundle, cache, pictures, monkeypatch):
    content = (bundle / "generator.onnx").read_bytes()
    model = onnx.load_from_string(content)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "of_noise")
    weight.raw_data = bytes(len(weight.raw_data))
    original = loading._start

    def swap_before(*arguments):
        (bundle / "generator.onnx").write_bytes(model.SerializeToString())
        return original(*arguments)

    monkeypatch.setattr(loading, "_start", swap_before)
    with expect_error(FileRefused, bundle / "generator.onnx"):
        load(bundle)
    monkeypatch.undo()
    monkeypatch.setenv("GALIP_CACHE", str(cache.parent))
    (bundle / "generator.onnx").write_bytes(content)
    assert np.abs(load(bundle).generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1


def test_loading_in_several_threads(bundle, cache, pictures):
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load(bundle), range(8)))
    for model in models:
        assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert {path.suffix for path in cache.iterdir()} == {".blob"}


def test_threads_can_share_a_model(bundle, cache):
    model = load(bundle)
    alone = [model.generate("red", seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: model.generate("red", seed), range(40)))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_a_cpu_without_the_precision(shared_bundle, cache, monkeypatch):
    monkeypatch.setattr(openvino_runner, "openvino_computes_in", lambda precision: precision == "fp32")
    for precision in ("bf16", "int8"):
        with expect_error(ProviderUnavailable, precision, PRECISIONS[precision].cpu_needs):
            load(shared_bundle, precision=precision)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_after_a_model_was_freed(bundle, cache):
    """It would be a segmentation fault if OpenVINO's core were freed, too."""
    code = f"""
import gc, signal, galip_runtime
galip_runtime.load({str(bundle)!r}, device="openvino").generate("red", 1)
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (0, "interrupted\n")


def test_a_graph_that_openvino_cannot_run(bundle, cache):
    data = (bundle / "generator.onnx").read_bytes()
    (bundle / "generator.onnx").write_bytes(data.replace(b"Add", b"And"))  # of floats
    relist(bundle, "generator.onnx")
    with expect_error(ProviderUnavailable, "OpenVINO", "generator.onnx", "cpu"):
        load(bundle)


def test_auto_passes_over_openvino(bundle, cache, monkeypatch):
    def fail(*_):
        raise ProviderUnavailable("OpenVINO cannot load it")

    monkeypatch.setattr(openvino_runner.OpenvinoRunner, "_compile", fail)
    info = galip_runtime.load(bundle).info()
    assert (info["device"], info["passed_over"]) == ("cpu", ["OpenVINO cannot load it"])


def test_a_file_is_read_as_onnx_whatever_its_content(bundle, cache, tmp_path):
    """OpenVINO alone would read XML as its own format, with weights from another file beside it."""
    xml = b"\n!--" + b"-" * 27 + b'--><net name="x" version="11"><layers/><edges/></net>'
    (bundle / "generator.onnx").write_bytes(xml)
    relist(bundle, "generator.onnx")
    with expect_error(FileRefused, bundle / "generator.onnx"):
        load(bundle)


def test_an_empty_package_left_by_openvino(bundle, tmp_path):
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import galip_runtime
print(galip_runtime.load({str(bundle)!r}).info()["device"])
galip_runtime.load({str(bundle)!r}, device="openvino")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.stdout == "cpu\n"
    last_line = process.stderr.strip().splitlines()[-1]
    command = install_extra("openvino-native", option="--force-reinstall")
    assert_names(last_line, "galip_runtime.errors.ProviderUnavailable", "OpenVINO", command)


def test_one_core_for_each_process(monkeypatch):
    openvino_runner._started.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        cores = list(pool.map(lambda _: openvino_runner.openvino_core(), range(16)))
    assert len(set(map(id, cores))) == 1


def test_threads_reach_openvino(bundle, cache):
    for threads in (1, 2):
        request = load(bundle, threads=threads)._runners["generator"]._request
        assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads


def test_without_onnxruntime(bundle, cache, pictures, monkeypatch):
    def missing():
        raise ProviderUnavailable("onnxruntime cannot be imported")

    monkeypatch.setattr(libraries, "import_onnxruntime", missing)
    model = galip_runtime.load(bundle)
    assert model.info()["device"] == "openvino"
    assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    with expect_error(ProviderUnavailable, "cpu", "openvino", *requirements("cpu")):
        galip_runtime.load(bundle, device="cpu")


def test_openvino_s_telemetry_is_not_imported():
    """Importing OpenVINO would import `openvino_telemetry`."""
    libraries.import_openvino()
    assert "openvino_telemetry" not in sys.modules
