"""onnxruntime sessions on the requested device, or an error.

Where a provider cannot start, onnxruntime falls back to the CPU and says so only in a log. The session's own
list of providers tells the truth, so that is what galip checks and reports.
"""

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from galip_runtime.backends.assignment import Provider
from galip_runtime.backends.libraries import import_onnxruntime, onnxruntime_providers
from galip_runtime.backends.runner import GraphFile, Runner, Settings
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import GalipError, ProviderUnavailable
from galip_runtime.forks import never_free

__all__ = ["OnnxruntimeRunner", "described", "session_options"]

_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
_FATAL_ONLY = 4


class OnnxruntimeRunner(Runner):
    """Runs a graph with one of onnxruntime's providers, which a subclass names.

    The CPU has `CpuRunner`, GPUs with a CUDA stream have `OnnxruntimeGpuRunner`.
    """

    execution_providers: ClassVar[tuple[str, ...]]
    """onnxruntime's names, best first"""

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the installed onnxruntime was built with the provider."""
        return cls.execution_providers[0] in onnxruntime_providers()

    def _start(self) -> None:
        self._onnxruntime = import_onnxruntime()
        self._session = self._open(self._cut())
        self.providers = self._session.get_providers()
        if self.execution_providers[0] not in self.providers:
            raise ProviderUnavailable(
                f"device {self.settings.device!r} was asked for, but onnxruntime started only "
                f"{', '.join(self.providers)}; what it printed above says why"
            )
        self._check_tensors(
            described(self._session.get_inputs()), described(self._session.get_outputs()), self._computed()
        )

    def _computed(self) -> Sequence[TensorSpec]:
        """Return the tensors that the session computes."""
        return self.outputs

    def _cut(self, threads: int | None = None) -> bytes:
        """Return the part of the graph that the session runs; `threads` as for `OnnxFile.extract`."""
        inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (self.inputs, self._computed()))
        return self.file.onnx.extract(inputs, outputs, threads=threads)

    def _open(self, model: bytes) -> Any:
        options = self._session_options()
        try:
            # without onnxruntime's own fallback, which also moves a failed run to the CPU and prints
            return self._onnxruntime.InferenceSession(
                model, options, providers=self._providers(), enable_fallback=0
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise self._load_error(error, model) from error

    def _session_options(self) -> Any:
        return session_options(self._onnxruntime, self.file, self.settings)

    def _providers(self) -> list[Provider]:
        """Return the providers to ask for, best first, with their options."""
        return [(self.execution_providers[0], {})]

    def _load_error(self, error: Exception, model: bytes) -> GalipError:
        return ProviderUnavailable(f"{self.settings.device} cannot load {self.file.spec.file}: {error}")

    def _give_up(self) -> None:
        never_free(self._session)
        del self._session

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32]
        (result,) = self._session.run([self.outputs[0].name], inputs)
        return result


def session_options(onnxruntime: ModuleType, file: GraphFile, settings: Settings) -> Any:
    """Return the options for a session on `settings`; docs/results.md shows what others cost."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Idle threads sleep instead of spinning: several models, or a web server, share the CPUs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Where the weights lie: `OnnxFile.extract` makes sure that they are read from this one file
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path",
        os.fsencode(file.path.parent.resolve()),  # bytes: a folder's name need not be UTF-8
    )
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    # Errors are raised with the same text; onnxruntime's own lines show names as they are, escape codes too
    options.log_severity_level = _FATAL_ONLY
    return options


def described(tensors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return (name, dtype, sizes) of each tensor; None for a dynamic size."""
    return [
        (
            tensor.name,
            _DTYPES.get(tensor.type, tensor.type),
            tuple(size if isinstance(size, int) else None for size in tensor.shape),
        )
        for tensor in tensors
    ]
