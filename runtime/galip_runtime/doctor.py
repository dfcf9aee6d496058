"""What this machine can run, and why not the rest: every device is tried, none is guessed from a list."""

import contextlib
import ctypes
import importlib.metadata
import platform
import sys
from typing import Any

from galip_runtime.backends.devices import computes_in
from galip_runtime.backends.engines import PACKAGES, import_tensorrt
from galip_runtime.backends.kernel_loading import kernels_here
from galip_runtime.backends.kernels import KernelsUnusable
from galip_runtime.backends.libraries import import_onnxruntime, import_openvino
from galip_runtime.backends.onnxruntime_gpu_runner import preload_libraries
from galip_runtime.backends.probe import why_not
from galip_runtime.backends.tables import DEVICE_TABLE, PRECISIONS
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.hardware import (
    cpu_features,
    cpu_name,
    driver_cuda_version,
    gpus,
    has_cpu_features,
    usable_cpus,
)
from galip_runtime.install import install_extra

__all__ = ["examine"]

_BUILDS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)
_LIBRARIES = {
    "cudart": (13, 12), "cublas": (13, 12), "cublasLt": (13, 12), "cudnn": (9,), "cufft": (12, 11),
    "curand": (10,), "nvrtc": (13, 12), "nvinfer": (11, 10),
}  # fmt: skip
"""the libraries that onnxruntime's providers for NVIDIA GPUs load, by name, and their versions"""


def examine() -> dict[str, Any]:
    """Examine this machine and return a report ready for JSON.

    `devices` has every device that `load` takes except auto: whether it `works`, `why` not (or None), and the
    `precisions` that it computes in.
    """
    return {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "system": platform.platform(),
        },
        "cpu": {
            "name": cpu_name(),
            "features": cpu_features(),
            "usable": usable_cpus(),
            "computes_in": {
                name: has_cpu_features(precision.cpu_features)
                for name, precision in PRECISIONS.items()
                if precision.cpu_features
            },
        },
        "gpus": _gpus(),
        "onnxruntime": _onnxruntime(),  # first: it loads the CUDA libraries of NVIDIA's packages
        "cuda_libraries": {name: _library(name, versions) for name, versions in _LIBRARIES.items()},
        "openvino": _openvino(),
        "kernels": _kernels(),
        "tensorrt": {name: _tensorrt(name) for name in PACKAGES},
        "devices": {name: _device(name) for name in DEVICE_TABLE},
    }


def _gpus() -> dict[str, Any]:
    try:
        return {"driver": driver_cuda_version(), "found": [vars(gpu) for gpu in gpus()], "why": None}
    except OSError as error:
        return {"driver": None, "found": [], "why": str(error)}


def _library(name: str, versions: tuple[int, ...]) -> dict[str, Any]:
    """Report the newest version of a library that the system's loader finds, or why it finds none."""
    problems = []
    for version in versions:
        file = f"{name}64_{version}.dll" if sys.platform == "win32" else f"lib{name}.so.{version}"
        try:
            ctypes.CDLL(file)
        except OSError as error:
            problems.append(str(error))
        else:
            return {"loads": file, "why": None}
    return {"loads": None, "why": problems[0]}


def _onnxruntime() -> dict[str, Any]:
    """Report which builds are installed, which one is imported, and what is wrong with them."""
    builds = {}
    for name in _BUILDS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            builds[name] = importlib.metadata.version(name)
    report: dict[str, Any] = {"builds": builds, "imported": None, "providers": [], "problem": None}
    try:
        onnxruntime = import_onnxruntime()
    except ProviderUnavailable as error:
        report["problem"] = str(error)
    else:
        report["imported"] = onnxruntime.__version__
        report["providers"] = onnxruntime.get_available_providers()
        if "CUDAExecutionProvider" in report["providers"]:
            preload_libraries(onnxruntime)
    if len(builds) > 1:
        extra = (
            "gpu"
            if "onnxruntime-gpu" in builds
            else "openvino"
            if "onnxruntime-openvino" in builds
            else "cpu"
        )
        report["problem"] = (
            f"{' and '.join(builds)} are installed into the same folder: the last one installed is the one "
            f"that runs, and removing either breaks the other. pip uninstall -y {' '.join(builds)}, then "
            f"{install_extra(extra)}"
        )
    return report


def _openvino() -> dict[str, Any]:
    try:
        return {"version": import_openvino().__version__, "why": None}
    except ProviderUnavailable as error:
        return {"version": None, "why": str(error)}


def _kernels() -> dict[str, Any]:
    """Report galip-kernels: its version, and the instructions that it uses on this CPU."""
    try:
        library = kernels_here()
    except KernelsUnusable as error:
        return {"version": None, "target": None, "why": str(error)}
    return {"version": library.version, "target": library.target, "why": None}


def _tensorrt(package: str) -> dict[str, Any]:
    try:
        return {"version": import_tensorrt(package)[1].__version__, "why": None}
    except ProviderUnavailable as error:
        return {"version": None, "why": str(error)}


def _device(name: str) -> dict[str, Any]:
    why = why_not(name)
    precisions = [precision for precision in PRECISIONS if why is None and computes_in(precision, name)]
    return {"works": why is None, "why": why, "precisions": precisions}
