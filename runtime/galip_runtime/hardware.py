"""CPUs and NVIDIA GPUs: which of them this process may use, and what they can do.

CPUs are counted by the scheduler's affinity and the container's quota; GPUs are read from the driver, for
which no package is needed.
"""

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from galip_runtime._renamed import renamed

__all__ = [
    "BF16_FEATURES",
    "INT8_FEATURES",
    "Gpu",
    "cpu_features",
    "cpu_name",
    "driver_cuda_version",
    "gpus",
    "has_cpu_features",
    "usable_cpus",
]

__getattr__ = renamed(__name__, {"driver": "driver_cuda_version"})

BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16"})
"""instructions that multiply in bf16, by their Linux names: a CPU needs one of them"""
INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
"""instructions that multiply in int8: without one of them, sums saturate in 16 bits"""

_FEATURES = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "amx_bf16", "amx_int8", "asimd", "asimddp", "fphp", "bf16", "i8mm", "sve",
)  # fmt: skip
"""Instructions that matter for neural networks, by their Linux names (x86 and Arm)."""


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of whole CPUs, at least 1. `root` is the folder above `/proc` and `/sys`."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(int(quota) for quota in _quotas(root))]))


def has_cpu_features(features: frozenset[str], root: Path = Path("/")) -> bool | None:
    """Return whether the CPU has one of `features`; None where the system does not list them.

    `root` is the folder above `/proc`.
    """
    try:
        words = (root / "proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return bool(features.intersection(words))


def cpu_name() -> str:
    """Return the processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Return the CPU's instructions that matter for neural networks; empty where Linux doesn't list them."""
    flags = (_cpuinfo("flags", "Features") or "").split()
    return [name for name in _FEATURES if name in flags]


def _cpuinfo(*names: str) -> str | None:
    """Return the first value of `/proc/cpuinfo` under one of these names; None if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return next((value.strip() for name, value in pairs if name.strip() in names), None)


def _quotas(root: Path) -> Iterator[float]:
    """Iterate over the CPU limits of the control groups around this process; empty where there is none."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or /proc isn't mounted
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # cgroup v2: one file, "QUOTA PERIOD" or "max PERIOD"
            for folder in _ancestors(root / "sys/fs/cgroup", group):
                yield from _ratio(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):  # cgroup v1: two files, quota -1 without a limit
            for folder in _ancestors(root / "sys/fs/cgroup/cpu", group):
                yield from _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _ancestors(mount: Path, group: str) -> Iterator[Path]:
    """Iterate over the group's folder and all above it; inside a container only the outermost may exist."""
    folder = mount.joinpath(*(part for part in PurePosixPath(group).parts if part not in ("/", "..")))
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the group has no such limit, or lies outside this container
        return []


def _ratio(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Gpu:
    """One GPU, in the driver's order."""

    name: str
    compute_capability: str
    """such as 8.6"""
    memory: int
    """bytes"""


def driver_cuda_version() -> str:
    """Return the newest CUDA version that the driver runs, such as 13.0. Raises OSError if it can't tell."""
    version = ctypes.c_int()
    _check(_library().cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def gpus() -> list[Gpu]:
    """Return the GPUs that this process may use. Raises OSError, with the reason, if the driver fails."""
    library, count = _library(), ctypes.c_int()
    _check(library.cuInit(0), "cuInit")
    _check(library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return [_gpu(library, number) for number in range(count.value)]


def _gpu(library: ctypes.CDLL, number: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    _check(library.cuDeviceGet(ctypes.byref(device), number), "cuDeviceGet")
    _check(library.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(library.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check(library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        parts.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(parts), memory.value)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(_LIBRARY)


def _check(result: int, call: str) -> None:
    if result:
        text = ctypes.c_char_p()
        _library().cuGetErrorString(result, ctypes.byref(text))
        raise OSError(f"{call} failed with {result}: {(text.value or b'an unknown error').decode()}")
