"""OpenVINO itself: the same pictures, what it keeps, and where it says no."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import galip_runtime
import numpy as np
import pytest
from galip_runtime import FileRefused, ProviderUnavailable, devices, openvino_graph
from stub_bundle import relist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def pictures(bundle):
    return galip_runtime.load(bundle, device="cpu").generate(["red", "a pan"], [1, 2])


def load(bundle, **options):
    return galip_runtime.load(bundle, device="openvino", **options)


def test_the_same_pictures_from_the_graph_and_from_the_cache(bundle, cache, pictures, monkeypatch):
    model = load(bundle)
    assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert model.info()["providers"]["generator"] == model.info()["providers"]["text_encoder"]
    assert model.info()["providers"]["generator"][0].startswith("OpenVINO 20")
    assert "openvino" in model.info()["versions"]
    assert len(list(cache.glob("*.blob"))) == 2
    monkeypatch.setattr(openvino_graph.OpenvinoGraph, "_compile", lambda *_: pytest.fail("compiled again"))
    again = load(bundle)
    assert (again.generate(["red", "a pan"], [1, 2]) == model.generate(["red", "a pan"], [1, 2])).all()


def test_precisions_and_threads_and_graphs_have_blobs_of_their_own(shared_bundle, cache):
    load(shared_bundle)
    load(shared_bundle, threads=1)
    assert len(list(cache.iterdir())) == 2
    load(shared_bundle, precision="int8")
    assert len(list(cache.iterdir())) == 3  # the text encoder is the one in fp32


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_blob_is_compiled_anew(bundle, cache, pictures, damage, caplog):
    load(bundle)
    for blob in cache.iterdir():
        data = blob.read_bytes()
        blob.write_bytes({"cut": data[:-9], "garbage": b"x" * len(data), "empty": b""}[damage])
    assert np.abs(load(bundle).generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert ("compiled anew" in caplog.text) == (damage == "garbage")
    caplog.clear()
    load(bundle)
    assert caplog.text == ""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whoever runs this may write anywhere")
def test_a_cache_that_cannot_be_written(bundle, cache, pictures, caplog):
    cache.parent.mkdir()
    cache.parent.chmod(0o500)
    assert load(bundle).generate(["red", "a pan"], [1, 2]).shape == pictures.shape
    assert "cannot keep what OpenVINO compiled" in caplog.text


def test_a_cache_that_is_a_file(bundle, cache, pictures, caplog):
    cache.parent.mkdir()
    cache.write_text("")
    assert load(bundle).generate(["red", "a pan"], [1, 2]).shape == pictures.shape
    assert "cannot keep what OpenVINO compiled" in caplog.text


def test_the_blobs_used_last_are_kept(bundle, cache, monkeypatch):
    monkeypatch.setattr(openvino_graph, "_KEPT_BLOBS", 3)
    cache.mkdir(parents=True)
    for age in range(5):
        path = cache / f"{age}-0.blob"
        path.write_text("")
        os.utime(path, (1000 - age, 1000 - age))
    load(bundle)
    assert len(list(cache.iterdir())) == 3
    assert (cache / "0-0.blob").exists()


def test_several_at_once_share_a_cache(bundle, cache, pictures):
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load(bundle), range(8)))
    for model in models:
        assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    assert {path.suffix for path in cache.iterdir()} == {".blob"}


def test_threads_share_a_model(bundle, cache):
    model = load(bundle)
    alone = [model.generate("red", seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: model.generate("red", seed), range(40)))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_a_cpu_without_bf16_says_so(shared_bundle, cache, monkeypatch):
    class Core(type(openvino_graph.openvino_core())):
        def get_property(self, device, name):
            return ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else "a CPU"

    monkeypatch.setattr(openvino_graph, "openvino_core", Core)
    with pytest.raises(ProviderUnavailable, match="this CPU has no bf16: use another precision"):
        load(shared_bundle, precision="bf16")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_after_a_model_is_gone_is_ctrl_c(bundle, cache):
    code = f"""
import gc, signal, galip_runtime
galip_runtime.load({str(bundle)!r}, device="openvino").generate("red", 1)
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n")


def test_a_graph_that_it_cannot_run(bundle, cache):
    data = (bundle / "generator.onnx").read_bytes()
    (bundle / "generator.onnx").write_bytes(data.replace(b"MatMul", b"NoSuch"))
    relist(bundle, "generator.onnx")
    with pytest.raises(FileRefused, match=r"OpenVINO cannot load generator\.onnx"):
        load(bundle)


def test_without_onnxruntime(bundle, cache, pictures, monkeypatch):
    def missing():
        raise ProviderUnavailable("onnxruntime cannot be imported")

    monkeypatch.setattr(devices, "import_onnxruntime", missing)
    model = galip_runtime.load(bundle)
    assert model.info()["device"] == "openvino"
    assert np.abs(model.generate(["red", "a pan"], [1, 2]).astype(int) - pictures).max() <= 1
    with pytest.raises(ProviderUnavailable, match=r"they have: openvino.*galip-runtime\[cpu\]"):
        galip_runtime.load(bundle, device="cpu")


def test_what_openvino_itself_would_send_is_not_sent():
    """Importing it imports `openvino_telemetry`, unless that cannot be."""
    devices.import_openvino()
    assert "openvino_telemetry" not in sys.modules
