"""Whether PyTorch has a CUDA device, as far as that is known before it is imported, which takes seconds."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.hardware import driver_cuda_version

__all__ = ["check_cuda", "may_have_cuda", "no_cuda"]

_NVIDIA = ("nvidia", "nvhost", "nvmap", "nvgpu", "dxg")
"""How the names of NVIDIA's devices in /dev begin, on servers, on Jetsons and under WSL."""


def check_cuda(device: str, advice: str) -> None:
    """Raise `ProviderUnavailable`, with `advice`, if `device` is cuda and PyTorch surely has none."""
    if device == "cuda" and not may_have_cuda():
        raise no_cuda(advice)


def no_cuda(advice: str) -> ProviderUnavailable:
    """Return the error for a PyTorch without a CUDA device; `advice`: what to do."""
    return ProviderUnavailable(f"PyTorch {version('torch')} finds no CUDA device; {advice}")


def may_have_cuda() -> bool:
    """Return False if PyTorch surely has no CUDA device: True says nothing.

    A build for CPUs has none, nor has one for CUDA on a Linux with neither NVIDIA's driver nor its devices.
    PyTorch is not imported, and CUDA not started.
    """
    build = _build()
    if "cuda" not in build:
        return True
    if any(value != "None" for name, value in build.items() if name != "cuda"):
        return True  # ROCm's devices are called cuda, too
    return build["cuda"] != "None" and (sys.platform != "linux" or _has_nvidia())


def _build() -> dict[str, str]:
    """Return what the installed PyTorch says that it is built for; nothing if that cannot be told."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return {}
    try:
        text = Path(torch.origin).with_name("version.py").read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^(cuda|hip|rocm)\b[^=\n]*= *(\S+)", text, re.MULTILINE))


def _has_nvidia() -> bool:
    try:
        driver_cuda_version()
    except OSError:
        return any(name.startswith(_NVIDIA) for name in os.listdir("/dev"))
    return True
