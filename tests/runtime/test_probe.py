"""A device works when a graph has run on it."""

import numpy as np
import pytest
from galip_runtime.backends import onnxruntime_runner, probe
from galip_runtime.backends.devices import available_devices


@pytest.mark.parametrize("device", [each for each in available_devices() if each in ("cpu", "openvino")])
def test_what_works(device):
    assert probe.why_not(device) is None


def test_what_is_not_there():
    assert "CUDAExecutionProvider" in probe.why_not("cuda") or "was asked for" in probe.why_not("cuda")
    assert "unknown" in probe.why_not("npu")


def test_what_starts_and_fails(monkeypatch):
    def broken(self, inputs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(onnxruntime_runner.OnnxruntimeRunner, "_compute", broken)
    assert "out of memory" in probe.why_not("cpu")


def test_what_computes_wrongly(monkeypatch):
    monkeypatch.setattr(
        onnxruntime_runner.OnnxruntimeRunner, "_compute", lambda self, inputs: np.zeros((2, 4), np.float32)
    )
    assert probe.why_not("cpu") == "it computes 1 + 1 as 0.0"


def test_a_system_without_a_folder_for_temporary_files(monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(probe.tempfile, "TemporaryDirectory", nowhere)
    assert "TMPDIR" in probe.why_not("cpu")
