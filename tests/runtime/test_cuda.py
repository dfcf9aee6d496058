"""CUDA's own names, and what it says where there is no GPU."""

import inspect
import re

import pytest
from fake_cuda import Cuda, install
from galip_runtime import ProviderUnavailable
from galip_runtime.backends import cuda
from galip_runtime.hardware import gpus

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


def test_every_name_that_is_used_is_one_of_cuda_s():
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
        with pytest.raises(ProviderUnavailable, match=r"no NVIDIA driver here \(.+\): install"):
            cuda.Stream(0)
    monkeypatch.setattr(cuda, "gpus", list)
    with pytest.raises(
        ProviderUnavailable,
        match=r"GPU 0 does not start: cudaSetDevice failed .*cudaError\w+ \(.+\)\. nvidia-smi",
    ):
        cuda.Stream(0)


def test_a_stream_outlives_what_cannot_be_freed(monkeypatch, caplog):
    install(monkeypatch, Cuda())
    stream, owner = cuda.Stream(0), Cuda()

    def fail():
        raise RuntimeError("not given back")

    stream.free_after(owner, fail)
    del owner
    assert stream.run(lambda: 1) == 1
    assert "not given back" in caplog.text
