"""The probe: a device works if a small graph has run on it."""

import numpy as np
import pytest
from error_checks import assert_names
from galip_runtime.backends import onnxruntime_runner, probe
from galip_runtime.backends.devices import available_devices


@pytest.mark.parametrize("device", [name for name in available_devices() if name in ("cpu", "openvino")])
def test_a_working_device(device):
    assert probe.why_not(device) is None


def test_a_missing_and_an_unknown_device():
    assert_names(probe.why_not("cuda"), "cuda")
    assert_names(probe.why_not("npu"), "npu", "cuda", "openvino:NPU")


def test_a_device_whose_run_fails(monkeypatch):
    def fail(self, inputs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(onnxruntime_runner.OnnxruntimeRunner, "_compute", fail)
    assert_names(probe.why_not("cpu"), "cpu", "out of memory")


def test_a_device_with_wrong_results(monkeypatch):
    monkeypatch.setattr(
        onnxruntime_runner.OnnxruntimeRunner, "_compute", lambda self, inputs: np.full((2, 4), 7, np.float32)
    )
    assert_names(probe.why_not("cpu"), 7.0)


def test_without_a_folder_for_temporary_files(monkeypatch):
    def fail():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(probe.tempfile, "TemporaryDirectory", fail)
    assert_names(probe.why_not("cpu"), "TMPDIR")
