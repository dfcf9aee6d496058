"""onnxruntime's runners for NVIDIA GPUs. CUDA and its provider are stand-ins (`fake_cuda`)."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType

import galip_runtime
import numpy as np
import onnx
import onnxruntime
import pytest
from error_checks import assert_names, expect_error
from fake_cuda import CudaSession, Error, pretend, wait_for
from galip_runtime import ProviderUnavailable, QualityGateFailed, loading
from galip_runtime.arrays import to_uint8
from galip_runtime.backends import onnxruntime_gpu_runner, probe, tensorrt_runner
from galip_runtime.bundle.manifest import read_manifest
from galip_runtime.install import requirements
from onnx import numpy_helper
from stub_bundle import relist

PROMPTS = [f"{number} red pans" for number in range(11)]


@pytest.fixture
def cuda(monkeypatch):
    """A GPU, and an onnxruntime with a provider for it."""
    return pretend(monkeypatch)


@pytest.fixture
def expected(bundle, monkeypatch):
    """The model on the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", CudaSession.real)
        return galip_runtime.load(bundle, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_pictures_are_those_of_the_cpu(cuda, bundle, expected, batch_size):
    model = galip_runtime.load(bundle, device="cuda")
    for _ in range(2):
        pictures = model.generate(PROMPTS, range(11), batch_size=batch_size)
        assert (pictures == expected.generate(PROMPTS, range(11), batch_size=batch_size)).all()
    noise, sentence = model.noise(range(11)), model.encode_text(PROMPTS)
    assert (sentence == expected.encode_text(PROMPTS)).all()
    image = model.decode(noise, sentence)
    assert (image == expected.decode(noise, sentence)).all()
    assert (to_uint8(image) == model.generate(PROMPTS, range(11))).all()
    assert model.info()["device"] == "cuda"
    assert model.info()["providers"]["generator"][0] == "CUDAExecutionProvider"


def test_only_pixels_are_copied_to_the_host(cuda, bundle, monkeypatch):
    model = galip_runtime.load(bundle, device="cuda")
    sentence, copies = model.encode_text("a pan"), []
    original = cuda.cudaMemcpyAsync

    def copy(target, source, size, kind, stream):
        copies.append((kind, size))
        assert stream == 77
        return original(target, source, size, kind, stream)

    monkeypatch.setattr(cuda, "cudaMemcpyAsync", copy)
    height, width = model.dimensions.image_height, model.dimensions.image_width
    model._run_pictures(model.noise([1]), sentence)
    model._conditions(sentence, model._run_condition)
    to_host = [size for kind, size in copies if kind == 2]
    assert to_host[-2:] == [height * width * 3, 4]  # pixels, and one number: whether they are finite
    copies.clear()
    model.decode(model.noise([1]), sentence)
    assert [size for kind, size in copies if kind == 2] == [height * width * 3 * 4]


def test_batches_run_in_few_sizes(cuda, bundle, expected, monkeypatch):
    monkeypatch.setattr(onnxruntime_gpu_runner.OnnxruntimeGpuRunner, "_largest", 16)
    model = galip_runtime.load(bundle, device="cuda")
    generator, noise = model._runners["generator"], model.noise(range(40))
    sentence = model.encode_text([f"{number} pans" for number in range(40)])
    for count in [*range(1, 20), 40]:
        image = model.decode(noise[:count], sentence[:count])
        assert (image == expected.decode(noise[:count], sentence[:count])).all(), count
    graphs = generator._native["session"].cuda_graphs.values()
    assert sorted(tensors["noise"].shape[0] for tensors in graphs) == [1, 2, 4, 8, 16]
    addresses = {tuple(tensor.address for tensor in tensors.values()) for tensors in graphs}
    assert len(addresses) == 1
    text = model._runners["text_encoder"]._native["session"].cuda_graphs.values()
    assert {tensors["tokens"].shape[1] for tensors in text} == {model.tokenizer.context_length}


def test_options_of_the_providers(cuda, bundle):
    galip_runtime.load(bundle, device="tensorrt:3")
    gpus = {
        options["device_id"] for session in CudaSession.sessions for options in session.providers.values()
    }
    assert gpus == {"3"}
    CudaSession.sessions.clear()
    galip_runtime.load(bundle, device="cuda:3")
    for session in CudaSession.sessions:
        assert list(session.providers) == ["CUDAExecutionProvider"]
        options = session.providers["CUDAExecutionProvider"]
        assert options["device_id"] == "3"
        assert options["user_compute_stream"] == "77"
        assert (options["enable_cuda_graph"], options["use_tf32"]) == ("1", "0")
    model = galip_runtime.load(bundle, device="cuda:1")
    model.generate("a", 1)
    for tensors in CudaSession.sessions[-1].cuda_graphs.values():
        assert {(tensor.device, tensor.gpu) for tensor in tensors.values()} == {("cuda", 1)}


def test_all_runners_of_a_model_share_a_stream(cuda, bundle):
    model = galip_runtime.load(bundle, device="cuda")
    model.generate("a", [1, 2])
    assert len(model._runners) >= 2
    assert cuda.streams == 1


def test_memory_is_freed_at_once(cuda, bundle):
    """Without the garbage collector: sessions first, then the memory bound to them, then the stream."""
    model = galip_runtime.load(bundle, device="cuda")
    model.generate("a", [1, 2])
    runners = len(model._runners)
    while CudaSession.sessions:
        weakref.finalize(CudaSession.sessions.pop(), cuda.freed.append, "session")
    gc.disable()
    try:
        del model
        wait_for(lambda: cuda.streams == 0)
    finally:
        gc.enable()
    assert len(cuda.memory) == 0
    assert cuda.freed.count("session") == runners
    assert cuda.freed[0] == "session"
    assert cuda.freed[-2:] == ["memory", "stream"]


def test_a_thread_that_outlives_the_main_thread(bundle, tmp_path):
    """A server has such threads: the interpreter ends its own pools before it waits for them."""
    code = f"""
import threading, time, pytest, galip_runtime
from fake_cuda import pretend
pretend(pytest.MonkeyPatch())
model = galip_runtime.load({str(bundle)!r}, device="cuda")
def late():
    time.sleep(0.5)
    print(model.generate("a", [1]).shape)
threading.Thread(target=late).start()
"""
    assert run(code) == "(1, 8, 8, 3)\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_gets_an_error(bundle):
    code = f"""
import os, pytest, galip_runtime
from fake_cuda import pretend
pretend(pytest.MonkeyPatch())
model = galip_runtime.load({str(bundle)!r}, device="cuda")
model.generate("a", [1])
if os.fork() == 0:
    try:
        model.generate("a", [1])
    except galip_runtime.ProviderUnavailable as error:
        os._exit(error.exit_code)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert run(code) == "5\n"


def run(code):
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_threads_can_share_a_model(cuda, bundle):
    model = galip_runtime.load(bundle, device="cuda")
    expected, wrong = model.generate(PROMPTS, range(11)), []

    def work(first):
        for _ in range(10):
            if not (model.generate(PROMPTS[first:], range(first, 11)) == expected[first:]).all():
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_printed_on_stdout(cuda, bundle, capsys):
    galip_runtime.load(bundle, device="cuda")
    assert capsys.readouterr().out == ""


def test_auto_chooses_cuda(cuda, bundle):
    assert galip_runtime.load(bundle).info()["device"] == "cuda"


def test_the_probe_runs_on_cuda(cuda):
    assert probe.why_not("cuda") is None
    assert CudaSession.sessions[-1].cuda_graphs


def test_the_tensorrt_provider_caches_its_engines(cuda, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    galip_runtime.load(bundle, device="tensorrt")
    folders = set()
    for session in CudaSession.sessions:
        assert list(session.providers) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
        options = session.providers["TensorrtExecutionProvider"]
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
        folders.add(options["trt_engine_cache_path"])
    assert len(folders) == len(CudaSession.sessions)  # one for each graph
    assert {path.parent for path in map(type(tmp_path), folders)} == {tmp_path / "cache/tensorrt"}


def test_with_a_placeholder_of_tensorrt_onnxruntime_runs(cuda, bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: True)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    info = galip_runtime.load(bundle, device="tensorrt").info()
    assert info["providers"]["generator"][0] == "TensorrtExecutionProvider"
    only_cuda = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: only_cuda)
    with expect_error(ProviderUnavailable, "tensorrt", *requirements("trt")):
        galip_runtime.load(bundle, device="tensorrt")


class TestErrors:
    def test_a_node_on_the_cpu_is_named(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "on_the_cpu", ("Unsqueeze",))
        with expect_error(
            ProviderUnavailable, "cuda", "text_encoder.onnx", "Unsqueeze", "CUDAExecutionProvider"
        ):
            galip_runtime.load(bundle, device="cuda")

    def test_auto_passes_over_a_device_with_nodes_on_the_cpu(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "on_the_cpu", ("Unsqueeze",))
        monkeypatch.setattr(loading, "candidates", lambda *_: ["cuda", "openvino"])
        model = galip_runtime.load(bundle)
        assert model.info()["device"] == "openvino"
        (reason,) = model.info()["passed_over"]
        assert_names(reason, "cuda", "Unsqueeze")

    def test_a_provider_that_does_not_start(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "starts", False)
        with expect_error(ProviderUnavailable, "cuda", "CPUExecutionProvider", "onnxruntime-gpu[cuda,cudnn]"):
            galip_runtime.load(bundle, device="cuda")

    def test_a_driver_that_does_not_start(self, cuda, bundle):
        cuda.cudaSetDevice = lambda gpu: (Error(35, "cudaErrorInsufficientDriver"),)
        values = ("GPU 0", "cudaErrorInsufficientDriver", "CUDA's explanation")
        with expect_error(ProviderUnavailable, *values):
            galip_runtime.load(bundle, device="cuda")
        assert CudaSession.sessions == []
        assert_names(probe.why_not("cuda"), *values)

    def test_without_cuda_bindings(self, cuda, bundle, monkeypatch):
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        with expect_error(ProviderUnavailable, "pip install", "cuda-bindings"):
            galip_runtime.load(bundle, device="cuda")

    def test_the_model_stays_usable_after_a_failed_run(self, cuda, bundle, expected, monkeypatch):
        """Both when a shape is new and when its CUDA graph is replayed."""
        model = galip_runtime.load(bundle, device="cuda")

        def fail(session, binding, options):
            raise RuntimeError("out of memory")

        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(CudaSession, "run_with_iobinding", fail)
                with expect_error(ProviderUnavailable, "cuda", "out of memory", "batch_size"):
                    model.generate("a pan", 1)
            assert (model.generate("a pan", 1) == expected.generate("a pan", 1)).all()

    def test_a_picture_that_is_not_finite(self, cuda, bundle, monkeypatch):
        path = bundle / read_manifest(bundle).graphs["generator"]["fp32"].file
        model = onnx.load(path)
        for weight in model.graph.initializer:
            value = numpy_helper.to_array(weight)
            if value.dtype == np.float32:
                weight.CopyFrom(numpy_helper.from_array(np.full_like(value, np.inf), weight.name))
        onnx.save(model, path)
        relist(bundle, path.name)
        loaded = galip_runtime.load(bundle, device="cuda")
        with expect_error(QualityGateFailed, "generator", "fp32"):
            loaded.generate("a pan", 1)
