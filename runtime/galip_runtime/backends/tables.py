"""The tables of devices and precisions. Loading, `doctor`, help texts, error messages and README read them.

A new device is a row here and a `Runner`; a new precision is a row here, in the rows of the devices that
compute in it, and what the exporter has of it (`galip_export.precisions`).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from galip_runtime.hardware import BF16_FEATURES, INT8_FEATURES
from galip_runtime.install import install_extra

if TYPE_CHECKING:
    from galip_runtime.backends.runner import Runner

__all__ = [
    "DEVICES",
    "DEVICE_TABLE",
    "PRECISIONS",
    "Device",
    "Precision",
    "devices_for",
    "is_nvidia",
    "supports",
]


@dataclass(frozen=True)
class Device:
    """What galip knows of a device."""

    hardware: str
    """what it is, for people"""
    extras: tuple[str, ...]
    """of the distribution galip-runtime: any of them installs it"""
    runner_names: tuple[str, ...]
    """module and class of what runs graphs on it, the preferred one first; imported when it is used"""
    precisions: tuple[str, ...]
    """that it computes in rather than around, as precision `auto` prefers them"""
    onnxruntime_build: bool = False
    """whether the extras install a build of onnxruntime, which excludes all others"""
    auto: int | None = None
    """its place among the devices that device `auto` tries; None: `auto` leaves it out"""
    numbered: bool = False
    """whether a number may follow the name: `cuda:1`"""
    batch_independent: bool = False
    """whether a picture is the same, bit for bit, whatever else is in its batch"""
    on_stream: bool = False
    """whether the graphs of a model share a CUDA stream"""
    cache: str = ""
    """folder in galip's cache for what it compiles; empty: it compiles nothing"""
    partial: bool = False
    """whether `fallback=True` lets the CPU run what it cannot"""
    tested: bool = False
    """whether the test suite has run on such a device, not only on a stand-in"""

    @property
    def runners(self) -> "tuple[type[Runner], ...]":
        """The classes of `runner_names`."""
        names = [name.split(".") for name in self.runner_names]
        return tuple(
            getattr(import_module(f"galip_runtime.backends.{module}"), runner) for module, runner in names
        )

    @property
    def needs(self) -> str:
        """The libraries that run it, for people."""
        return " or ".join(runner.needs for runner in self.runners)

    @property
    def install(self) -> str:
        """The command that installs it, and what to do first."""
        commands = " or ".join(map(install_extra, self.extras))
        if self.onnxruntime_build:
            return (
                "onnxruntime's builds exclude one another: uninstall every onnxruntime package, then "
                f"{commands}"
            )
        return f"{commands}, beside any onnxruntime"


DEVICE_TABLE = {
    "cuda": Device(
        "NVIDIA GPU",
        ("gpu",),
        ("onnxruntime_gpu_runner.CudaRunner",),
        ("fp32", "w16a32", "fp16"),
        onnxruntime_build=True,
        auto=0,
        numbered=True,
        on_stream=True,
    ),
    "openvino": Device(
        "CPU",
        ("openvino-native", "openvino"),
        ("openvino_runner.OpenvinoRunner", "onnxruntime_openvino_runner.OnnxruntimeOpenvinoRunner"),
        ("fp32", "w16a32", "bf16", "int8"),
        auto=1,
        batch_independent=True,
        cache="openvino",
        tested=True,
    ),
    "cpu": Device(
        "CPU",
        ("cpu",),
        ("cpu_runner.CpuRunner",),
        ("fp32", "w16a32"),
        onnxruntime_build=True,
        auto=2,
        batch_independent=True,
        tested=True,
    ),
    "tensorrt": Device(  # not for auto: it builds for minutes before the first picture
        "NVIDIA GPU",
        ("trt", "trt-rtx"),
        ("tensorrt_runner.TensorrtRunner", "onnxruntime_gpu_runner.OnnxruntimeTensorrtRunner"),
        ("fp16", "fp32"),
        numbered=True,
        on_stream=True,
        cache="tensorrt",
    ),
    "openvino:GPU": Device(
        "Intel GPU",
        ("openvino-native",),
        ("openvino_target_runners.OpenvinoGpuRunner",),
        ("fp32", "w16a32", "fp16"),
        cache="openvino",
    ),
    "openvino:NPU": Device(  # which has no arithmetic in float32
        "Intel NPU",
        ("openvino-native",),
        ("openvino_target_runners.OpenvinoNpuRunner",),
        ("fp16",),
        cache="openvino",
    ),
    "coreml": Device(
        "Apple CPU, GPU, Neural Engine",
        ("cpu",),
        ("partial_runner.CoremlRunner",),
        ("fp32", "w16a32", "fp16"),
        onnxruntime_build=True,
        partial=True,
    ),
    "directml": Device(
        "any GPU on Windows",
        ("directml",),
        ("partial_runner.DirectmlRunner",),
        ("fp32", "w16a32", "fp16"),
        onnxruntime_build=True,
        numbered=True,
        partial=True,
    ),
}
DEVICES = ("auto", *sorted(DEVICE_TABLE))
"""what `load` takes as a device; those that are `numbered` also with a number"""


@dataclass(frozen=True)
class Precision:
    """What the runtime knows of a precision; the exporter adds its conversion and its gate."""

    stored: str
    """type of the weights in the graph's file"""
    cpu_features: frozenset[str] = frozenset()
    """instructions, as Linux names them, of which a CPU needs one; none: any CPU will do"""
    cpu_needs: str = ""
    """the same, for people"""


PRECISIONS = {
    "fp32": Precision("float32"),
    "w16a32": Precision("float16"),
    # for GPUs: a CPU has no half-precision kernels, so that onnxruntime would convert to and fro
    "fp16": Precision("float16"),
    "bf16": Precision("float32", BF16_FEATURES, "AVX512_BF16 or AMX"),
    # for OpenVINO: onnxruntime would compute in float and round in between, slower than in fp32
    "int8": Precision("int8", INT8_FEATURES, "AVX512_VNNI, AVX_VNNI or AMX"),
}


def devices_for(precision: str) -> tuple[str, ...]:
    """Return the devices that compute in `precision`; all for one that a later release has added."""
    if precision not in PRECISIONS:
        return tuple(DEVICE_TABLE)
    return tuple(name for name, device in DEVICE_TABLE.items() if precision in device.precisions)


def is_nvidia(device: str) -> bool:
    """Return whether `device`, with or without a number, is an NVIDIA GPU. `auto` is not."""
    row = DEVICE_TABLE.get(device.partition(":")[0])
    return row is not None and row.on_stream


def supports(precision: str, device: str) -> bool:
    """Return whether `device` (not `auto`) computes in `precision` rather than around it."""
    return device in devices_for(precision)
