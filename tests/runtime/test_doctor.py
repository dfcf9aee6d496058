"""`galip doctor`'s findings, on healthy machines and on broken ones."""

import importlib.metadata
import json
import sys

import pytest
from error_checks import assert_names
from galip_runtime import doctor, hardware
from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.hardware import Gpu
from galip_runtime.install import requirements


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these builds of onnxruntime are installed."""

    def install(**builds):
        versions = {name.replace("_", "-"): version for name, version in builds.items()}
        original = importlib.metadata.version

        def version(name):
            if not name.startswith("onnxruntime"):
                return original(name)
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


def test_this_machine():
    report = doctor.examine()
    json.dumps(report, allow_nan=False)
    assert set(report["devices"]) == set(DEVICE_TABLE)
    assert report["devices"]["cpu"] == {"works": True, "why": None, "precisions": ["fp32", "w16a32"]}
    assert report["cpu"]["usable"] >= 1
    assert report["onnxruntime"]["imported"]
    for device in report["devices"].values():
        assert device["works"] == (device["why"] is None) == bool(device["precisions"])


def test_two_builds_of_onnxruntime(installed):
    installed(onnxruntime="1.32.0", onnxruntime_gpu="1.31.1")
    assert_names(
        doctor._onnxruntime()["problem"],
        "pip uninstall -y onnxruntime onnxruntime-gpu",
        *requirements("gpu"),
    )
    installed(onnxruntime_openvino="1.24.1")
    assert doctor._onnxruntime()["problem"] is None


def test_no_onnxruntime(installed, monkeypatch):
    installed()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = doctor._onnxruntime()
    assert (report["builds"], report["imported"], report["providers"]) == ({}, None, [])
    assert_names(report["problem"], *requirements("cpu"))
    assert_names(doctor._device("cpu")["why"], *requirements("cpu"))


def test_gpus(monkeypatch):
    monkeypatch.setattr(doctor, "driver_cuda_version", lambda: "13.0")
    monkeypatch.setattr(doctor, "gpus", lambda: [Gpu("NVIDIA H200", "9.0", 150 * 10**9)])
    assert doctor._gpus() == {
        "driver": "13.0",
        "found": [{"name": "NVIDIA H200", "compute_capability": "9.0", "memory": 150 * 10**9}],
        "why": None,
    }


def test_a_missing_driver(monkeypatch):
    hardware._library.cache_clear()
    monkeypatch.setattr(hardware, "_LIBRARY", "libmissing.so.1")
    report = doctor._gpus()
    hardware._library.cache_clear()
    assert report["found"] == []
    assert_names(report["why"], "libmissing.so.1")


def test_libraries():
    assert doctor._library("c", (7, 6)) == {"loads": "libc.so.6", "why": None}
    assert_names(doctor._library("missing", (3, 2))["why"], "libmissing.so.3")


class Driver:
    """A stand-in for libcuda: two GPUs, or an error."""

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


def test_gpus_as_the_driver_lists_them(monkeypatch):
    monkeypatch.setattr(hardware, "_library", Driver)
    assert hardware.driver_cuda_version() == "13.1"
    assert hardware.gpus() == [Gpu("GPU 0", "8.6", 8 * 2**30), Gpu("GPU 1", "8.9", 8 * 2**30)]
    monkeypatch.setattr(hardware, "_library", lambda: Driver(error=100))
    with pytest.raises(OSError) as info:  # noqa: PT011, its values are checked
        hardware.gpus()
    assert_names(str(info.value), "cuInit", 100, "no CUDA-capable device is detected")  # the driver's words
