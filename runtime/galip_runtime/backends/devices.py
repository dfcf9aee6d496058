"""Which device to use: what is installed, what `auto` tries, and which runner a graph gets."""

import re
from collections.abc import Sequence

from galip_runtime.arrays import check_count, short_repr
from galip_runtime.backends.engines import import_tensorrt
from galip_runtime.backends.kernel_loading import kernels_compute
from galip_runtime.backends.libraries import import_onnxruntime, install_advice
from galip_runtime.backends.runner import GraphFile, Runner, Settings
from galip_runtime.backends.tables import DEVICE_TABLE, DEVICES, PRECISIONS, devices_for, supports
from galip_runtime.backends.tensorrt_runner import TensorrtRunner
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import ProviderUnavailable, UsageError
from galip_runtime.hardware import usable_cpus

__all__ = [
    "MOST_THREADS",
    "available_devices",
    "candidates",
    "check_fallback",
    "check_precision",
    "computes_in",
    "create_runner",
    "parse_device",
    "runs_engines",
    "thread_count",
]

MOST_THREADS = 1024
"""the most CPU threads of one run: more than any machine's CPUs, and each one is started"""


def available_devices() -> list[str]:
    """Return the devices that the installed packages are built for; they may still fail to start.

    Raises ProviderUnavailable where none of onnxruntime, OpenVINO and TensorRT is installed.
    """
    devices = [
        name
        for name, device in DEVICE_TABLE.items()
        if any(runner.is_installed() for runner in device.runners)
    ]
    if not devices:
        import_onnxruntime()
    return devices


def runs_engines(device: str) -> bool:
    """Return whether `device` runs a bundle's engines: TensorRT does, onnxruntime's provider does not."""
    native, *others = DEVICE_TABLE[device].runners
    if not (issubclass(native, TensorrtRunner) and native.is_installed()):
        return False
    try:
        import_tensorrt()
    except ProviderUnavailable:  # a placeholder, or broken; it is reported where nothing else runs the device
        return not any(runner.is_installed() for runner in others)
    return True


def parse_device(device: str) -> tuple[str, int]:
    """Split a device into its name and the number of its GPU: `cuda:1`; 0 where no number is given.

    Raises UsageError for an unknown device.
    """
    text = device if isinstance(device, str) else ""
    if text in DEVICES:
        return text, 0
    numbered = [name for name, row in DEVICE_TABLE.items() if row.numbered]
    match = re.fullmatch(rf"({'|'.join(numbered)}):(\d{{1,3}})", text, re.ASCII)
    if match is None:
        raise UsageError(
            f"device {short_repr(device)} is unknown; use one of {', '.join(DEVICES)}, or "
            "cuda:1 for the second GPU"
        )
    return match[1], int(match[2])


def check_fallback(fallback: bool, device: str) -> None:
    """Raise UsageError where `fallback` is asked for and `device` runs all nodes of a graph or none."""
    if fallback and (device == "auto" or not DEVICE_TABLE[device].partial):
        partial = [name for name, row in DEVICE_TABLE.items() if row.partial]
        raise UsageError(
            f"fallback is for {' and '.join(partial)}, whose graphs may run on the CPU in part, not for "
            f"{device}: leave it out"
        )


def computes_in(precision: str, device: str) -> bool:
    """Return whether `device`, which is available, computes in `precision` on this machine."""
    runners = DEVICE_TABLE[device].runners
    runner = next((runner for runner in runners if runner.is_installed()), runners[0])
    return supports(precision, device) and runner.computes_in(precision)


def check_precision(precision: str, device: str) -> None:
    """Raise ProviderUnavailable where `device` has `precision` and this machine's CPU does not."""
    if supports(precision, device) and not computes_in(precision, device):
        raise ProviderUnavailable(
            f"this CPU does not compute in {precision}, which takes {PRECISIONS[precision].cpu_needs}: use "
            "another precision, such as fp32"
        )


def candidates(device: str, precision: str) -> list[str]:
    """Return the devices to try for `device`, one of `DEVICES`, best first.

    `auto` tries those that are installed and compute in `precision`: a GPU first, then cpu and openvino, the
    faster one first. That is cpu where galip-kernels computes in `precision`; without it, OpenVINO is faster
    except for single pictures of very small models (docs/results.md).

    Raises UsageError where `device` does not compute in `precision`, ProviderUnavailable where it is not
    installed or, for `auto`, nothing installed computes in `precision`.
    """
    if device != "auto" and not supports(precision, device):
        raise UsageError(
            f"precision {precision!r} makes no sense on {device}: it is for "
            f"{' and '.join(devices_for(precision))}. Use another precision, such as "
            f"{DEVICE_TABLE[device].precisions[0]}, or another device"
        )
    available = available_devices()
    if device == "auto":
        ranked = sorted((row.auto, name) for name, row in DEVICE_TABLE.items() if row.auto is not None)
        fit = [name for _, name in ranked if name in available and supports(precision, name)]
        if not fit:
            raise ProviderUnavailable(_nothing_fits(precision, available))
        if {"cpu", "openvino"} <= set(fit) and kernels_compute(precision):
            fit.remove("cpu")
            fit.insert(fit.index("openvino"), "cpu")
        return fit
    if device not in available:
        row = DEVICE_TABLE[device]
        raise ProviderUnavailable(
            f"device {device!r} needs {row.needs}, which the installed packages do not have "
            f"(they have: {', '.join(available) or 'none'}). {row.install}"
        )
    return [device]


def _nothing_fits(precision: str, available: Sequence[str]) -> str:
    """Word the error of `auto` where no device is left."""
    built = [name for name in available if supports(precision, name)]
    if built:
        return (
            f"'auto' does not choose {' or '.join(built)}, and nothing else is installed that computes in "
            f"{precision}: ask for it, for example device={built[0]!r}. Or: {install_advice()}"
        )
    fit = devices_for(precision)
    if {"cpu", "cuda", "openvino"} <= set(fit):
        return f"no onnxruntime with a provider that galip-runtime can use is installed. {install_advice()}"
    return (
        f"nothing that is installed computes in {precision} (there is: {', '.join(available) or 'none'}): "
        f"{precision} is for {' and '.join(fit)}. {DEVICE_TABLE[fit[0]].install}, or use another precision"
    )


def create_runner(
    file: GraphFile, settings: Settings, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Runner:
    """Return the preferred runner of the device that can run `file`, loaded. Raises as `Runner`."""
    runners = DEVICE_TABLE[settings.device].runners
    runner = next((runner for runner in runners if runner.can_run(file)), runners[-1])
    return runner(file, settings, inputs, outputs)


def thread_count(threads: int | None) -> int:
    """Return `threads`; for None the CPUs that this process may use. Raises UsageError if not 1 to 1024."""
    if threads is None:
        return usable_cpus()
    return check_count(threads, "threads (None for as many as there are CPUs)", most=MOST_THREADS)
