"""What the doctor finds, on machines that are well and on those that are not."""

import importlib.metadata
import json

import pytest
from galip_runtime import doctor, hardware
from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.hardware import Gpu


@pytest.fixture
def installed(monkeypatch):
    """Only these builds of onnxruntime are installed."""

    def install(**builds):
        names = {name.replace("_", "-"): version for name, version in builds.items()}
        real = importlib.metadata.version

        def version(name):
            if not name.startswith("onnxruntime"):
                return real(name)
            if name not in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return names[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


def test_this_machine():
    found = doctor.examine()
    json.dumps(found, allow_nan=False)
    assert set(found["devices"]) == set(DEVICE_TABLE)
    assert found["devices"]["cpu"] == {"works": True, "why": None, "precisions": ["fp32", "w16a32"]}
    assert found["cpu"]["usable"] >= 1
    assert found["onnxruntime"]["imported"]
    for device in found["devices"].values():
        assert device["works"] == (device["why"] is None) == bool(device["precisions"])


def test_two_builds_of_onnxruntime(installed):
    installed(onnxruntime="1.32.0", onnxruntime_gpu="1.31.1")
    problem = doctor._onnxruntime()["problem"]
    assert "onnxruntime and onnxruntime-gpu" in problem
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'galip-runtime[gpu]'" in problem
    installed(onnxruntime_openvino="1.24.1")
    assert doctor._onnxruntime()["problem"] is None


def test_no_onnxruntime(installed, monkeypatch):
    import sys

    installed()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = doctor._onnxruntime()
    assert (found["builds"], found["imported"], found["providers"]) == ({}, None, [])
    assert "galip-runtime[cpu]" in found["problem"]
    assert doctor._device("cpu")["why"]


def test_gpus(monkeypatch):
    monkeypatch.setattr(doctor, "driver_cuda_version", lambda: "13.0")
    monkeypatch.setattr(doctor, "gpus", lambda: [Gpu("NVIDIA H200", "9.0", 150 * 10**9)])
    assert doctor._gpus() == {
        "driver": "13.0",
        "found": [{"name": "NVIDIA H200", "compute_capability": "9.0", "memory": 150 * 10**9}],
        "why": None,
    }


def test_a_driver_that_is_not_there(monkeypatch):
    hardware._library.cache_clear()
    monkeypatch.setattr(hardware, "_LIBRARY", "libnot_there.so.1")
    found = doctor._gpus()
    hardware._library.cache_clear()
    assert found["found"] == []
    assert "libnot_there.so.1" in found["why"]


def test_libraries():
    assert doctor._library("c", (7, 6)) == {"loads": "libc.so.6", "why": None}
    assert "libnot_there.so.3" in doctor._library("not_there", (3, 2))["why"]


class Driver:
    """Stands in for libcuda: two GPUs, or an error."""

    def __init__(self, error=0):
        self.error = error

    def cuDriverGetVersion(self, version):
        version._obj.value = 13010
        return 0

    def cuInit(self, flags):
        return self.error

    def cuDeviceGetCount(self, count):
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 8 * 2**30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 6 + 3 * device.value}[attribute]
        return 0

    def cuGetErrorString(self, error, text):
        text._obj.value = b"no CUDA-capable device is detected"
        return 0


def test_what_the_driver_tells(monkeypatch):
    monkeypatch.setattr(hardware, "_library", Driver)
    assert hardware.driver_cuda_version() == "13.1"
    assert hardware.gpus() == [Gpu("GPU 0", "8.6", 8 * 2**30), Gpu("GPU 1", "8.9", 8 * 2**30)]
    monkeypatch.setattr(hardware, "_library", lambda: Driver(error=100))
    with pytest.raises(OSError, match="cuInit failed with 100: no CUDA-capable device is detected"):
        hardware.gpus()
