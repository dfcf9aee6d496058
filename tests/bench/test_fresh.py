"""Cold start and memory in processes of their own."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from galip_bench import fresh
from galip_runtime.errors import ProviderUnavailable


def test_a_fresh_process(tiny_models):
    began = time.monotonic()
    found = fresh.measure("bundle-cpu-fp32", tiny_models, prompt="a red box", batch=2)
    assert list(found.seconds) == ["start", "import", "load", "first_picture", "total"]
    assert sum(list(found.seconds.values())[:4]) == pytest.approx(found.seconds["total"])
    assert 0 < found.seconds["total"] < time.monotonic() - began
    assert 0.05 < found.cpu_seconds < 60
    assert 20e6 < found.peak_resident_bytes < 400e6  # without PyTorch, and without this process's memory
    if sys.platform == "linux":
        assert 10e6 < found.anonymous_bytes < found.peak_resident_bytes
    assert found.peak_device_bytes is None
    with pytest.raises(ProviderUnavailable, match=r"failed and said: .*no subject bundle-cpu-fp64"):
        fresh.measure("bundle-cpu-fp64", tiny_models, prompt="a")


def test_what_linux_does_not_tell(monkeypatch):
    def hidden(*_):
        raise FileNotFoundError

    monkeypatch.setattr(fresh.Path, "read_text", hidden)
    assert fresh._status("RssAnon") is None
    assert fresh._peak_resident() > 10e6


def test_a_bundle_s_process_has_no_torch():
    code = "import sys, galip_bench.fresh, galip_bench.subjects; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class NVMLError(Exception):
    pass


@pytest.mark.parametrize(("visible", "asked"), [(None, 0), ("2,0", 2), ("GPU-ab", "GPU-ab")])
def test_device_memory(monkeypatch, visible, asked):
    handles = []
    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: handles.append(index),
        nvmlDeviceGetHandleByUUID=lambda name: handles.append(name),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=123),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert fresh._device_bytes() == 123
    assert handles == [asked]

    def no_driver():
        raise NVMLError

    nvml.nvmlInit = no_driver
    assert fresh._device_bytes() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert fresh._device_bytes() is None
