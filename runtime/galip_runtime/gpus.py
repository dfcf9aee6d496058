"""NVIDIA GPUs of this machine, as the driver tells: no package is needed."""

import ctypes
import functools
import sys
from dataclasses import dataclass

__all__ = ["Gpu", "driver", "gpus"]

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


def driver() -> str:
    """The newest CUDA that the driver runs, such as 13.0. Raises OSError, saying why, where there is none."""
    version = ctypes.c_int()
    _check(_library().cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def gpus() -> list[Gpu]:
    """All GPUs that this process may use. Raises OSError, saying why, where the driver does not start."""
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
