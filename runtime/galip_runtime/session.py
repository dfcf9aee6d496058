"""onnxruntime sessions on the device that was asked for, or an error.

onnxruntime falls back to the CPU with no more than a line in a log where a provider cannot start. Only the
session's own list of providers tells the truth, so that is what is checked and reported.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.cpus import usable_cpus
from galip_runtime.errors import FileRefused, ProviderUnavailable, UsageError
from galip_runtime.manifest import GraphSpec, TensorSpec

__all__ = [
    "DEVICES",
    "Graph",
    "Settings",
    "available_devices",
    "candidates",
    "import_onnxruntime",
    "parse_device",
    "thread_count",
]

Provider = tuple[str, dict[str, str]]

_PROVIDERS = {
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "cuda": ("CUDAExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
}
_EXTRAS = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu", "openvino": "openvino"}
_AUTO = ("cuda", "openvino", "cpu")  # not tensorrt, which builds for minutes before the first picture
_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
_ERRORS_ONLY = 3
_INSTALL = (
    "Install exactly one of its builds: pip install 'galip-runtime[cpu]', "
    "'galip-runtime[gpu]' (NVIDIA) or 'galip-runtime[openvino]' (Intel)"
)

DEVICES = ("auto", *sorted(_PROVIDERS))


@dataclass(frozen=True)
class Settings:
    """How a graph is run."""

    device: str
    """one of `DEVICES` but `auto`"""
    threads: int
    """CPU threads of one run"""
    gpu: int = 0
    """which GPU, where the device is one"""


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


def available_devices() -> list[str]:
    """Devices that the installed onnxruntime was built for; whether they start is another matter."""
    built = import_onnxruntime().get_available_providers()
    return [device for device, providers in _PROVIDERS.items() if providers[0] in built]


def parse_device(device: str) -> tuple[str, int]:
    """A device's name and the number of its GPU: `cuda:1` or `tensorrt:1`, the first one where none is given.

    Raises UsageError for an unknown one.
    """
    match = re.fullmatch(r"(cuda|tensorrt):(\d{1,3})", str(device), re.ASCII)
    name, gpu = (match[1], int(match[2])) if match else (device, 0)
    if name not in DEVICES:
        raise UsageError(
            f"device {device!r} is unknown; use one of {', '.join(DEVICES)}, or cuda:1 for the second GPU"
        )
    return name, gpu


def candidates(device: str) -> list[str]:
    """The devices to try for `device`, one of `DEVICES`, best first.

    Raises ProviderUnavailable for one that the installed onnxruntime lacks.
    """
    built = available_devices()
    if device == "auto":
        return [each for each in _AUTO if each in built]
    if device not in built:
        raise ProviderUnavailable(
            f"device {device!r} needs {_PROVIDERS[device][0]}, which the installed onnxruntime does not have "
            f"(it has: {', '.join(built)}). Its builds exclude one another: uninstall every onnxruntime "
            f"package, then pip install 'galip-runtime[{_EXTRAS[device]}]'"
        )
    return [device]


def thread_count(threads: int | None) -> int:
    """`threads`, or for None the CPUs that this process may use. Raises UsageError below 1."""
    if threads is None:
        return usable_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads is a whole number of at least 1 or None, not {threads!r}")
    return threads


class Graph:
    """A graph on a device. May be run by several threads at once."""

    def __init__(self, data: bytes, spec: GraphSpec, precision: str, settings: Settings) -> None:
        """`data`: the ONNX file's bytes, already verified.

        Raises ProviderUnavailable where the device does not start, FileRefused where `data` is no graph that
        onnxruntime can run or its inputs and outputs are not those of `spec`.
        """
        onnxruntime = import_onnxruntime()
        self.spec, self.precision, self.settings = spec, precision, settings
        options = _options(onnxruntime, precision, settings)
        wanted = _PROVIDERS[settings.device]
        try:
            # without its own fall-back, which would also move a failed run to the CPU and print to stdout
            self._session = onnxruntime.InferenceSession(
                data, options, providers=_providers(settings), enable_fallback=0
            )
        except Exception as error:  # onnxruntime's errors have no common base of their own
            if settings.device == "cpu":
                raise FileRefused(f"onnxruntime cannot load {spec.file}: {error}. Export it again") from error
            raise ProviderUnavailable(f"{settings.device} cannot load {spec.file}: {error}") from error
        self.providers: list[str] = self._session.get_providers()
        if wanted[0] not in self.providers:
            raise ProviderUnavailable(
                f"device {settings.device!r} was asked for, but onnxruntime started only "
                f"{', '.join(self.providers)}; what it printed above says why (most often a driver, or a "
                "library of CUDA, cuDNN or TensorRT, that is missing or too old)"
            )
        _check_tensors(spec.file, "inputs", self._session.get_inputs(), spec.inputs)
        _check_tensors(spec.file, "outputs", self._session.get_outputs(), spec.outputs)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The graph's one output for `inputs`, which the caller has checked.

        Raises ProviderUnavailable where the device gives up on it.
        """
        try:
            (output,) = self._session.run([self.spec.outputs[0].name], dict(inputs))
        except Exception as error:  # no common base, as above
            raise ProviderUnavailable(
                f"{self.settings.device} failed to run {self.spec.file}: {error}. If memory is short, a "
                "smaller batch_size needs less; otherwise export the bundle again"
            ) from error
        result: npt.NDArray[np.float32] = output
        return result


def _options(onnxruntime: ModuleType, precision: str, settings: Settings) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Idle threads sleep instead of spinning: several models, or a web server, share the CPUs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A graph is one file: weights that it seeks in others are sought where none can be, so it is refused
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if settings.device == "cpu":
        options.log_severity_level = _ERRORS_ONLY
        if precision != "fp32":
            # the CPU provider crashes on fp16 graphs at the level above (seen in 1.26 to 1.31)
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return options


def _providers(settings: Settings) -> list[Provider]:
    """With the CPU last: it runs what the device has no kernel for."""
    own = {
        "OpenVINOExecutionProvider": {"device_type": "CPU", "num_of_threads": str(settings.threads)},
        "CUDAExecutionProvider": {"device_id": str(settings.gpu)},
        "TensorrtExecutionProvider": {"device_id": str(settings.gpu)},
    }
    names = dict.fromkeys([*_PROVIDERS[settings.device], "CPUExecutionProvider"])
    return [(name, own.get(name, {})) for name in names]


def _check_tensors(file: str, what: str, found: list[Any], expected: tuple[TensorSpec, ...]) -> None:
    """The graph's own inputs or outputs against the manifest's; a dynamic size may have any name."""
    listed = [(tensor.name, _TYPES.get(tensor.dtype), _sizes(tensor.shape)) for tensor in expected]
    actual = [(tensor.name, tensor.type, _sizes(tensor.shape)) for tensor in found]
    if sorted(actual, key=str) != sorted(listed, key=str):
        raise FileRefused(
            f"{file} is another graph than the manifest says: its {what} are {actual}, not {listed}. "
            "Export the bundle again"
        )


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
