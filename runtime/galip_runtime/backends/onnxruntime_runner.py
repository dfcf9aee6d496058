"""onnxruntime sessions on the device that was asked for, or an error.

onnxruntime falls back to the CPU with no more than a line in a log where a provider cannot start. Only the
session's own list of providers tells the truth, so that is what is checked and reported.
"""

import json
import os
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.backends.devices import PROVIDERS, Settings, import_onnxruntime
from galip_runtime.backends.openvino_runner import check_cpu, openvino_settings
from galip_runtime.backends.runner import GraphFile, Runner
from galip_runtime.errors import FileRefused, ProviderUnavailable
from galip_runtime.forks import never_free

__all__ = ["OnnxruntimeRunner", "described", "session_options"]

_Provider = tuple[str, dict[str, str]]

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
_FATAL_ONLY = 4


class OnnxruntimeRunner(Runner):
    """Runs a graph by onnxruntime, on the CPU or through OpenVINO; `OnnxruntimeGpuRunner` does on a GPU."""

    def _start(self) -> None:
        onnxruntime = import_onnxruntime()
        inputs, outputs = ([each.name for each in tensors] for tensors in (self.inputs, self.outputs))
        on_cpu = self.settings.device == "cpu"
        model = self.file.onnx.cut(inputs, outputs, threads=self.settings.threads if on_cpu else None)
        wanted, name = PROVIDERS[self.settings.device], self.file.spec.file
        try:
            # without its own fall-back, which would also move a failed run to the CPU and print to stdout
            self._session = onnxruntime.InferenceSession(
                model,
                session_options(onnxruntime, self.file, self.settings),
                providers=_providers(self.file.precision, self.settings),
                enable_fallback=0,
            )
        except ProviderUnavailable:
            raise
        except Exception as error:  # onnxruntime's errors have no common base of their own
            if on_cpu:
                raise FileRefused(f"onnxruntime cannot load {name}: {error}. Export it again") from error
            raise ProviderUnavailable(f"{self.settings.device} cannot load {name}: {error}") from error
        self.providers = self._session.get_providers()
        if wanted[0] not in self.providers:
            raise ProviderUnavailable(
                f"device {self.settings.device!r} was asked for, but onnxruntime started only "
                f"{', '.join(self.providers)}; what it printed above says why"
            )
        self._check_tensors(described(self._session.get_inputs()), described(self._session.get_outputs()))

    def _give_up(self) -> None:
        never_free(self._session)
        del self._session

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32]
        (result,) = self._session.run([self.outputs[0].name], inputs)
        return result


def session_options(onnxruntime: ModuleType, file: GraphFile, settings: Settings) -> Any:
    """As measured: benchmarks/README.md has what others cost."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Idle threads sleep instead of spinning: several models, or a web server, share the CPUs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Where the weights lie: `OnnxFile.cut` has made sure that they are sought in this one file
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path",
        os.fsencode(file.path.parent.resolve()),  # bytes: a folder's name may be no UTF-8
    )
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not what the bytes look like
    # Errors are raised with the same text; onnxruntime's own lines show names as they are, escape codes too
    options.log_severity_level = _FATAL_ONLY
    if (
        settings.device == "openvino"
    ):  # it has optimisations of its own, which onnxruntime's get in the way of
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _providers(precision: str, settings: Settings) -> list[_Provider]:
    """With the CPU last: it runs what OpenVINO leaves."""
    cpu: _Provider = ("CPUExecutionProvider", {})
    if settings.device == "cpu":
        return [cpu]
    return [("OpenVINOExecutionProvider", _openvino(precision, settings.threads)), cpu]


def _openvino(precision: str, threads: int) -> dict[str, str]:
    """Its `cache_dir` is left out: onnxruntime-openvino 1.24 writes there each time and loads no faster."""
    check_cpu(precision)
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": openvino_settings(precision, threads)})}


def described(tensors: list[Any]) -> list[tuple[Any, ...]]:
    """(name, dtype, sizes) of each; None for a dynamic size."""
    return [
        (
            tensor.name,
            _DTYPES.get(tensor.type, tensor.type),
            tuple(size if isinstance(size, int) else None for size in tensor.shape),
        )
        for tensor in tensors
    ]
