"""Which devices there are, what each can compute in, and which of them to try."""

import functools
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from galip_runtime.arrays import check_count, shown
from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.engines import has_tensorrt, import_tensorrt
from galip_runtime.backends.precisions import PRECISIONS
from galip_runtime.errors import ProviderUnavailable, UsageError
from galip_runtime.forks import Lock
from galip_runtime.hardware import usable_cpus

__all__ = [
    "DEVICES",
    "DEVICE_TABLE",
    "PROVIDERS",
    "Device",
    "Settings",
    "available_devices",
    "backend_versions",
    "candidates",
    "has_openvino",
    "import_onnxruntime",
    "import_openvino",
    "parse_device",
    "runs_engines",
    "supports",
    "thread_count",
]

MOST_THREADS = 1024
"""CPU threads of one run; a machine that has more is no faster with them"""

_INSTALL = (
    "Install exactly one of its builds: pip install 'galip-runtime[cpu]', 'galip-runtime[gpu]' (NVIDIA) or "
    "'galip-runtime[openvino]' (Intel); or OpenVINO alone: 'galip-runtime[openvino-native]'"
)

_importing = Lock()
"""more than the CPUs of any machine; as many threads are started"""


@dataclass(frozen=True)
class Device:
    """A row of the table of devices."""

    providers: tuple[str, ...]
    """onnxruntime's for it, best first"""
    install: str
    """what to do to have it"""
    library: str = ""
    """what runs it without onnxruntime, for people"""
    auto: int | None = None
    """its place among those that `auto` tries; None: it is not one of them"""
    on_stream: bool = False
    """whether the graphs of one model run on a CUDA stream"""
    compiles: bool = False
    """whether it keeps what it compiles in galip's cache"""


_ONE_BUILD = "onnxruntime's builds exclude one another: uninstall every onnxruntime package, then "
DEVICE_TABLE = {
    "tensorrt": Device(  # not for auto: it builds for minutes before the first picture
        ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
        "pip install 'galip-runtime[trt]', or [trt-rtx] for TensorRT for RTX, beside any onnxruntime",
        library="TensorRT",
        on_stream=True,
        compiles=True,
    ),
    "cuda": Device(
        ("CUDAExecutionProvider",),
        f"{_ONE_BUILD}pip install 'galip-runtime[gpu]'",
        auto=0,
        on_stream=True,
    ),
    "openvino": Device(
        ("OpenVINOExecutionProvider",),
        "pip install 'galip-runtime[openvino-native]', beside any onnxruntime",
        library="OpenVINO",
        auto=1,
        compiles=True,
    ),
    "cpu": Device(("CPUExecutionProvider",), f"{_ONE_BUILD}pip install 'galip-runtime[cpu]'", auto=2),
}
PROVIDERS = {name: device.providers for name, device in DEVICE_TABLE.items()}
"""device -> onnxruntime's providers for it, best first"""
DEVICES = ("auto", *sorted(DEVICE_TABLE))


@dataclass(frozen=True)
class Settings:
    """How a graph is run."""

    device: str
    """one of `DEVICES` but `auto`"""
    threads: int
    """CPU threads of one run"""
    gpu: int = 0
    """which GPU, where the device is one"""
    cache: Path | None = None
    """folder for what a device compiles; None: it compiles each time"""
    stream: Stream | None = None
    """where the graphs of one model run on a GPU, one after the other; None on other devices"""


def import_onnxruntime() -> ModuleType:
    """`onnxruntime`. Raises ProviderUnavailable naming the packages that bring it.

    Its builds from 1.29 on report sessions to Microsoft, names and hashes of the graphs included, unless a
    variable of the environment says otherwise when it is first imported. Here it does, if the user has set
    none.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderUnavailable(f"onnxruntime cannot be imported ({error}). {_INSTALL}") from error
    module: ModuleType = onnxruntime
    if not hasattr(module, "InferenceSession"):  # what is left of one build when another is uninstalled
        raise ProviderUnavailable(f"onnxruntime is installed in parts only. Uninstall all of it. {_INSTALL}")
    return module


@functools.cache
def has_openvino() -> bool:
    """Whether OpenVINO itself is installed, which needs no onnxruntime."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """`openvino`. Raises ProviderUnavailable where it cannot be imported.

    As it is imported it tells its makers, through `openvino_telemetry`, unless that package is missing; here
    it is.
    """
    name, remedy = "openvino_telemetry", "pip install --force-reinstall 'galip-runtime[openvino-native]'"
    with _importing:
        hidden = name not in sys.modules
        if hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: cannot be imported
        try:
            import openvino
        except Exception as error:  # not ImportErrors alone: a library of it may be missing
            raise ProviderUnavailable(f"OpenVINO cannot be imported ({error}): {remedy}") from error
        finally:
            if hidden:
                sys.modules.pop(name, None)
    module: ModuleType = openvino
    if not hasattr(module, "Core"):  # what is left of one that was uninstalled
        raise ProviderUnavailable(f"OpenVINO is installed in parts only: {remedy}")
    return module


def backend_versions() -> dict[str, str]:
    """Versions of what is loaded of onnxruntime and OpenVINO."""
    loaded = {name: sys.modules.get(name) for name in ("onnxruntime", "openvino")}
    versions = {name: getattr(module, "__version__", None) for name, module in loaded.items()}
    return {name: str(version) for name, version in versions.items() if version}


def available_devices() -> list[str]:
    """Devices that the installed packages were built for; whether they start is another matter.

    Raises ProviderUnavailable where none of onnxruntime, OpenVINO and TensorRT is installed.
    """
    built = _providers()
    if not (built or has_openvino() or has_tensorrt()):
        import_onnxruntime()
    native = {"openvino": has_openvino(), "tensorrt": has_tensorrt()}
    return [
        device
        for device, providers in PROVIDERS.items()
        if providers[0] in built or native.get(device, False)
    ]


def runs_engines() -> bool:
    """Whether device tensorrt runs a bundle's engines: TensorRT does, onnxruntime's provider does not."""
    if not has_tensorrt():
        return False
    try:
        import_tensorrt()
    except ProviderUnavailable:  # a placeholder, or broken: what it lacks is told where nothing else is there
        return "TensorrtExecutionProvider" not in _providers()
    return True


def _providers() -> list[str]:
    """Those that the installed onnxruntime was built with; none where there is no onnxruntime."""
    try:
        providers: list[str] = import_onnxruntime().get_available_providers()
    except ProviderUnavailable:
        return []
    return providers


def parse_device(device: str) -> tuple[str, int]:
    """A device's name and the number of its GPU: `cuda:1` or `tensorrt:1`, the first one where none is given.

    Raises UsageError for an unknown one.
    """
    text = device if isinstance(device, str) else ""
    match = re.fullmatch(r"(cuda|tensorrt):(\d{1,3})", text, re.ASCII)
    name, gpu = (match[1], int(match[2])) if match else (str(text), 0)
    if name not in DEVICES:
        raise UsageError(
            f"device {shown(device)} is unknown; use one of {', '.join(DEVICES)}, or cuda:1 for "
            "the second GPU"
        )
    return name, gpu


def supports(precision: str, device: str) -> bool:
    """Whether `device`, one of `DEVICES` but `auto`, computes in `precision` rather than around it."""
    return device in _devices_of(precision)


def _devices_of(precision: str) -> tuple[str, ...]:
    """Devices that compute in `precision`, the best one first."""
    row = PRECISIONS.get(precision)  # one of a bundle of a later release is none of the table's
    return tuple(DEVICE_TABLE) if row is None or row.devices is None else row.devices


def candidates(device: str, precision: str) -> list[str]:
    """The devices to try for `device`, one of `DEVICES`, best first.

    `auto`: those that are there and compute in `precision`; a GPU first, then OpenVINO, which is faster than
    onnxruntime's own CPU provider but for single pictures of very small models (benchmarks/README.md).

    Raises UsageError where `device` does not compute in `precision`, ProviderUnavailable where it is not
    installed or, for `auto`, nothing that is computes in `precision`.
    """
    if device != "auto" and not supports(precision, device):
        raise UsageError(
            f"precision {precision!r} makes no sense on {device}: it is for "
            f"{' and '.join(_devices_of(precision))}. Use another precision, such as fp32, or another device"
        )
    found = available_devices()
    if device == "auto":
        ranked = sorted((row.auto, name) for name, row in DEVICE_TABLE.items() if row.auto is not None)
        fit = [name for _, name in ranked if name in found and supports(precision, name)]
        if not fit:
            raise ProviderUnavailable(_nothing(precision, found))
        return fit
    if device not in found:
        row = DEVICE_TABLE[device]
        needed = f"{row.library} or onnxruntime's {row.providers[0]}" if row.library else row.providers[0]
        raise ProviderUnavailable(
            f"device {device!r} needs {needed}, which the installed packages do not have "
            f"(they have: {', '.join(found) or 'none'}). {DEVICE_TABLE[device].install}"
        )
    return [device]


def _nothing(precision: str, found: list[str]) -> str:
    if "tensorrt" in found and supports(precision, "tensorrt"):
        return (
            "'auto' does not choose tensorrt, whose engines have to be built, and nothing else is installed "
            f"that computes in {precision}: use device='tensorrt'. Or: {_INSTALL}"
        )
    if len(_devices_of(precision)) == len(DEVICE_TABLE):
        return f"no onnxruntime with a provider that galip-runtime can use is installed. {_INSTALL}"
    device = _devices_of(precision)[0]
    return (
        f"nothing that is installed computes in {precision} (there is: {', '.join(found) or 'none'}): "
        f"{precision} is for {' and '.join(_devices_of(precision))}. {DEVICE_TABLE[device].install}, or use "
        "another precision"
    )


def thread_count(threads: int | None) -> int:
    """`threads`, or for None the CPUs that this process may use. Raises UsageError if not 1 to 1024."""
    if threads is None:
        return usable_cpus()
    return check_count(threads, "threads (None for as many as there are CPUs)", most=MOST_THREADS)
