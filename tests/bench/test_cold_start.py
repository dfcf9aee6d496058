"""Cold start and memory in processes of their own."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from galip_bench import cold_start
from galip_bench.cold_start import measure_cold_start
from galip_runtime.errors import ProviderUnavailable


def test_a_fresh_process(tiny_models):
    result = measure_cold_start("bundle-cpu-fp32", tiny_models, prompt="a red box", batch=2)
    assert list(result.seconds) == ["start", "import", "load", "first_picture", "total"]
    assert min(result.seconds.values()) > 0
    assert sum(list(result.seconds.values())[:4]) == pytest.approx(result.seconds["total"])
    assert result.cpu_seconds > 0
    assert 20e6 < result.peak_resident_bytes < 400e6  # without PyTorch, and without this process's memory
    if sys.platform == "linux":
        assert 10e6 < result.anonymous_bytes < result.peak_resident_bytes
    assert result.peak_device_bytes is None
    with pytest.raises(ProviderUnavailable, match="bundle-cpu-fp64"):
        measure_cold_start("bundle-cpu-fp64", tiny_models, prompt="a")


def test_what_linux_does_not_say(monkeypatch):
    def hidden(*_):
        raise FileNotFoundError

    monkeypatch.setattr(cold_start.Path, "read_text", hidden)
    assert cold_start._status("RssAnon") is None
    assert cold_start._peak_resident() > 10e6


def test_a_process_with_a_bundle_imports_only_what_it_needs():
    code = (
        "import sys, galip_bench.cold_start, galip_bench.subjects; "
        "sys.exit(bool({'torch', 'galip_bench.report'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class NVMLError(Exception):
    pass


@pytest.mark.parametrize(("visible", "handle"), [(None, 0), ("2,0", 2), ("GPU-ab", "GPU-ab")])
def test_device_memory(monkeypatch, visible, handle):
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
    assert cold_start._device_bytes() == 123
    assert handles == [handle]

    def no_driver():
        raise NVMLError

    nvml.nvmlInit = no_driver
    assert cold_start._device_bytes() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert cold_start._device_bytes() is None
