"""The functions of CUDA that galip calls, and the errors where there is no GPU."""

import inspect
import re

import pytest
from error_checks import expect_error
from fake_cuda import Cuda, install
from galip_runtime import ProviderUnavailable, hardware
from galip_runtime.backends import cuda
from galip_runtime.hardware import gpus

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


def test_every_name_in_use_exists_in_cuda_bindings():
    names = set(re.findall(r"\bcuda[A-Z]\w+", inspect.getsource(cuda)))
    assert runtime.cudaStreamNonBlocking == 1
    assert {"cudaMemcpyAsync", "cudaStreamBeginCapture", "cudaGraphLaunch"} <= names
    kinds = {name for name in names if name.startswith(("cudaMemcpyHost", "cudaMemcpyDevice"))}
    modes = {
        name for name in names if name.startswith("cudaStreamCaptureMode") and name != "cudaStreamCaptureMode"
    }
    assert all(hasattr(runtime.cudaMemcpyKind, name) for name in kinds)
    assert all(hasattr(runtime.cudaStreamCaptureMode, name) for name in modes)
    assert [name for name in names - kinds - modes if not hasattr(runtime, name)] == []


def test_without_a_gpu(monkeypatch):
    try:
        if gpus():
            pytest.skip("there is a GPU")
    except OSError:
        with expect_error(ProviderUnavailable, hardware._LIBRARY):
            cuda.Stream(0)
    monkeypatch.setattr(cuda, "gpus", list)
    with expect_error(ProviderUnavailable, "GPU 0", "cudaSetDevice", "nvidia-smi", "galip doctor") as info:
        cuda.Stream(0)
    assert re.search(r"\bcudaError\w+", str(info.value))


def test_a_stream_survives_an_error_in_freeing(monkeypatch, caplog):
    install(monkeypatch, Cuda())
    stream, owner, error = cuda.Stream(0), Cuda(), RuntimeError("not freed")

    def fail():
        raise error

    stream.free_after(owner, fail)
    del owner
    assert stream.run(lambda: 1) == 1
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
