"""What onnxruntime's options cost on a GPU, which is a stand-in here (`fake_cuda`)."""

import json
import sys

import pytest
from fake_cuda import CudaSession, pretend
from galip_runtime.errors import ProviderUnavailable
from studies import gpu_options


def test_options(tiny_bundle, monkeypatch):
    pretend(monkeypatch)
    result = json.loads(json.dumps(gpu_options.measure(tiny_bundle, rounds=2, threads=1)))
    assert result["precision"] == "fp32"
    assert set(result["seconds"]) == set(gpu_options.CHANGES)
    for of_batches in result["seconds"].values():
        assert list(of_batches) == ["1", "16", "64"]
        assert all(len(samples) == 2 and min(samples) > 0 for samples in of_batches.values())
    asked = [session.providers["CUDAExecutionProvider"] for session in CudaSession.sessions]
    for changed, change in zip(asked, gpu_options.CHANGES.values(), strict=True):
        assert changed == {**asked[0], **change}
    table = gpu_options.table([result]).splitlines()
    assert table[0] == "|  | 28 pixels, 1 at once | 28 pixels, 16 at once | 28 pixels, 64 at once |"
    assert table[2] == "| as used | 1 | 1 | 1 |"
    assert len(table) == 2 + len(gpu_options.CHANGES)


def test_without_a_gpu(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(ProviderUnavailable, match="cuda-bindings"):
        gpu_options.measure(tiny_bundle, rounds=1)
