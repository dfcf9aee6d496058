"""Graphs as onnxruntime runs them on a GPU. CUDA and its provider are stand-ins (`fake_cuda`)."""

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
import onnxruntime
import pytest
from fake_cuda import CudaSession, Error, pretend, wait_for
from galip_runtime import ProviderUnavailable, QualityGateFailed, loading
from galip_runtime.arrays import to_uint8
from galip_runtime.backends import onnxruntime_gpu_runner, probe, tensorrt_runner
from galip_runtime.bundle.manifest import read_manifest
from stub_bundle import relist

PROMPTS = [f"{number} red pans" for number in range(11)]


@pytest.fixture
def cuda(monkeypatch):
    """A GPU, and an onnxruntime that has a provider for it."""
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
        found = model.generate(PROMPTS, range(11), batch_size=batch_size)
        assert (found == expected.generate(PROMPTS, range(11), batch_size=batch_size)).all()
    noise, sentence = model.noise(range(11)), model.encode_text(PROMPTS)
    assert (sentence == expected.encode_text(PROMPTS)).all()
    image = model.decode(noise, sentence)
    assert (image == expected.decode(noise, sentence)).all()
    assert (to_uint8(image) == model.generate(PROMPTS, range(11))).all()
    assert model.info()["device"] == "cuda"
    assert model.info()["providers"]["generator"][0] == "CUDAExecutionProvider"


def test_only_the_pixels_come_back(cuda, bundle, monkeypatch):
    model = galip_runtime.load(bundle, device="cuda")
    sentence, copied = model.encode_text("a pan"), []
    real = cuda.cudaMemcpyAsync

    def copy(target, source, size, kind, stream):
        copied.append((kind, size))
        assert stream == 77
        return real(target, source, size, kind, stream)

    monkeypatch.setattr(cuda, "cudaMemcpyAsync", copy)
    height, width = model.dimensions.image_height, model.dimensions.image_width
    model._run_pictures(model.noise([1]), sentence)
    model._conditions(sentence, model._run_condition)
    to_host = [size for kind, size in copied if kind == 2]
    assert to_host[-2:] == [height * width * 3, 4]  # and one number that says whether it is finite
    copied.clear()
    model.decode(model.noise([1]), sentence)
    assert [size for kind, size in copied if kind == 2] == [height * width * 3 * 4]


def test_batches_are_run_in_few_sizes(cuda, bundle, expected, monkeypatch):
    monkeypatch.setattr(onnxruntime_gpu_runner.OnnxruntimeGpuRunner, "_largest", 16)
    model = galip_runtime.load(bundle, device="cuda")
    generator, noise = model._runners["generator"], model.noise(range(40))
    sentence = model.encode_text([f"{number} pans" for number in range(40)])
    for count in [*range(1, 20), 40]:
        image = model.decode(noise[:count], sentence[:count])
        assert (image == expected.decode(noise[:count], sentence[:count])).all(), count
    bound = generator._native["session"].captured.values()
    assert sorted(each["noise"][3][0] for each in bound) == [1, 2, 4, 8, 16]
    assert len({tuple(place[4] for place in each.values()) for each in bound}) == 1  # the same addresses
    text = model._runners["text_encoder"]._native["session"].captured.values()
    assert {each["tokens"][3][1] for each in text} == {model.tokenizer.context_length}


def test_what_onnxruntime_is_told(cuda, bundle):
    galip_runtime.load(bundle, device="tensorrt:3")
    assert {each["device_id"] for session in CudaSession.made for each in session.asked.values()} == {"3"}
    CudaSession.made.clear()
    galip_runtime.load(bundle, device="cuda:3")
    for session in CudaSession.made:
        assert list(session.asked) == ["CUDAExecutionProvider"]
        told = session.asked["CUDAExecutionProvider"]
        assert told["device_id"] == "3"
        assert told["user_compute_stream"] == "77"
        assert (told["enable_cuda_graph"], told["use_tf32"]) == ("1", "0")
    model = galip_runtime.load(bundle, device="cuda:1")
    model.generate("a", 1)
    for bound in CudaSession.made[-1].captured.values():
        assert {place[:2] for place in bound.values()} == {("cuda", 1)}


def test_one_stream_for_all_of_a_model(cuda, bundle):
    model = galip_runtime.load(bundle, device="cuda")
    model.generate("a", [1, 2])
    assert len(model._runners) >= 2
    assert cuda.streams == 1


def test_memory_is_given_back_at_once(cuda, bundle):
    """Without the garbage collector: sessions first, then what is bound to them, then the stream."""
    model = galip_runtime.load(bundle, device="cuda")
    model.generate("a", [1, 2])
    graphs = len(model._runners)
    while CudaSession.made:
        weakref.finalize(CudaSession.made.pop(), cuda.order.append, "session")
    gc.disable()
    try:
        del model
        wait_for(lambda: cuda.streams == 0)
    finally:
        gc.enable()
    assert len(cuda.memory) == 0
    assert cuda.order.count("session") == graphs
    assert cuda.order[0] == "session"
    assert cuda.order[-2:] == ["memory", "stream"]


def test_a_thread_that_outlives_the_main_one(bundle, tmp_path):
    """As a server's: the interpreter ends its own pools before it waits for threads."""
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
def test_a_forked_process_is_told_so(bundle):
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
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    assert "loaded before this process was forked" in run(code)


def run(code):
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_share_it(cuda, bundle):
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


def test_nothing_is_printed_where_programs_read(cuda, bundle, capsys):
    galip_runtime.load(bundle, device="cuda")
    assert capsys.readouterr().out == ""


def test_auto_takes_it(cuda, bundle):
    assert galip_runtime.load(bundle).info()["device"] == "cuda"


def test_the_probe_runs_on_it(cuda):
    assert probe.why_not("cuda") is None
    assert CudaSession.made[-1].captured


def test_tensorrt_s_provider_keeps_its_engines(cuda, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    galip_runtime.load(bundle, device="tensorrt")
    folders = set()
    for session in CudaSession.made:
        assert list(session.asked) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
        told = session.asked["TensorrtExecutionProvider"]
        assert told["trt_engine_cache_enable"] == told["trt_timing_cache_enable"] == "1"
        folders.add(told["trt_engine_cache_path"])
    assert len(folders) == len(CudaSession.made)  # none takes another's
    assert {path.parent for path in map(type(tmp_path), folders)} == {tmp_path / "cache/tensorrt"}


def test_a_placeholder_of_tensorrt_leaves_it_to_onnxruntime(cuda, bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: True)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    info = galip_runtime.load(bundle, device="tensorrt").info()
    assert info["providers"]["generator"][0] == "TensorrtExecutionProvider"
    only_cuda = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: only_cuda)
    with pytest.raises(ProviderUnavailable, match="tensorrt is a placeholder"):
        galip_runtime.load(bundle, device="tensorrt")


class Test_what_goes_wrong:
    def test_a_node_on_the_cpu_is_named(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "on_the_cpu", ("Unsqueeze",))
        with pytest.raises(
            ProviderUnavailable, match=r"run .+ \(Unsqueeze\).* on the CPU, because CUDA"
        ) as caught:
            galip_runtime.load(bundle, device="cuda")
        assert caught.value.exit_code == 5

    def test_auto_passes_over_it(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "on_the_cpu", ("Unsqueeze",))
        monkeypatch.setattr(loading, "candidates", lambda *_: ["cuda", "openvino"])
        model = galip_runtime.load(bundle)
        assert model.info()["device"] == "openvino"
        assert "Unsqueeze" in model.info()["passed_over"][0]

    def test_a_provider_that_does_not_start(self, cuda, bundle, monkeypatch):
        monkeypatch.setattr(CudaSession, "starts", False)
        with pytest.raises(ProviderUnavailable, match=r"started only CPU.*onnxruntime-gpu\[cuda,cudnn\]"):
            galip_runtime.load(bundle, device="cuda")

    def test_a_driver_that_does_not_start(self, cuda, bundle):
        cuda.cudaSetDevice = lambda gpu: (Error(35, "cudaErrorInsufficientDriver"),)
        with pytest.raises(
            ProviderUnavailable,
            match=r"GPU 0 does not start: .* cudaErrorInsufficientDriver \(what it means\)",
        ):
            galip_runtime.load(bundle, device="cuda")
        assert CudaSession.made == []
        assert "cudaErrorInsufficientDriver" in probe.why_not("cuda")

    def test_without_cuda_bindings(self, cuda, bundle, monkeypatch):
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        with pytest.raises(ProviderUnavailable, match="pip install cuda-bindings"):
            galip_runtime.load(bundle, device="cuda")

    def test_a_run_that_fails_leaves_the_model_usable(self, cuda, bundle, expected, monkeypatch):
        """When a shape first comes, and when it is replayed."""
        model = galip_runtime.load(bundle, device="cuda")

        def fail(session, binding, options):
            raise RuntimeError("out of memory")

        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(CudaSession, "run_with_iobinding", fail)
                with pytest.raises(ProviderUnavailable, match=r"out of memory.*smaller batch_size"):
                    model.generate("a pan", 1)
            assert (model.generate("a pan", 1) == expected.generate("a pan", 1)).all()

    def test_a_picture_that_is_not_finite(self, cuda, bundle, monkeypatch):
        import onnx
        from onnx import numpy_helper

        path = bundle / read_manifest(bundle).graphs["generator"]["fp32"].file
        model = onnx.load(path)
        for weight in model.graph.initializer:
            value = numpy_helper.to_array(weight)
            if value.dtype == np.float32:
                weight.CopyFrom(numpy_helper.from_array(np.full_like(value, np.inf), weight.name))
        onnx.save(model, path)
        relist(bundle, path.name)
        loaded = galip_runtime.load(bundle, device="cuda")
        with pytest.raises(QualityGateFailed, match="the generator gave values that are not finite"):
            loaded.generate("a pan", 1)
