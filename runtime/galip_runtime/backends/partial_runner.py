"""onnxruntime providers that may leave nodes to the CPU: CoreML and DirectML.

By default every node has to run on the device, or loading fails and names nodes that do not. With
`fallback=True` the CPU runs them, and `Model.info` lists them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.backends.assignment import CPU, NO_CPU, RECORD, Provider, nodes_on_cpu, why_not_here
from galip_runtime.backends.onnxruntime_runner import OnnxruntimeRunner
from galip_runtime.errors import GalipError, ProviderUnavailable
from galip_runtime.forks import Lock

__all__ = ["CoremlRunner", "DirectmlRunner", "PartialRunner"]


class PartialRunner(OnnxruntimeRunner):
    """Runs a graph with a provider that may leave nodes to the CPU."""

    def _start(self) -> None:
        super()._start()
        if self.settings.fallback:
            self.nodes_on_cpu = nodes_on_cpu(self._session)

    def _session_options(self) -> Any:
        return self._options_with(RECORD if self.settings.fallback else NO_CPU)

    def _options_with(self, switch: str) -> Any:
        options = super()._session_options()
        options.add_session_config_entry(switch, "1")
        return options

    def _load_error(self, error: Exception, model: bytes) -> GalipError:
        if self.settings.fallback:
            return super()._load_error(error, model)
        advice = "Load with fallback=True to let the CPU run them, or use device 'cpu'"
        reason = why_not_here(
            self._onnxruntime, model, self._options_with, self._providers(), _only_started, advice
        )
        return ProviderUnavailable(
            f"{self.settings.device} cannot load {self.file.spec.file}: {reason or error}"
        )

    def _providers(self) -> list[Provider]:
        # without fallback the CPU's is not named: onnxruntime adds it by itself and refuses to use it
        return [(self.execution_providers[0], self._options()), *([CPU] if self.settings.fallback else [])]

    @abstractmethod
    def _options(self) -> Mapping[str, str]:
        """Return the provider's options."""


class CoremlRunner(PartialRunner):
    """Runs a graph with Apple's CoreML: CPU, GPU and Neural Engine, as CoreML chooses."""

    needs = "onnxruntime's CoreMLExecutionProvider"
    execution_providers = ("CoreMLExecutionProvider",)

    def _options(self) -> Mapping[str, str]:
        return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


class DirectmlRunner(PartialRunner):
    """Runs a graph with Microsoft's DirectML on any GPU of a Windows machine."""

    needs = "onnxruntime's DmlExecutionProvider"
    execution_providers = ("DmlExecutionProvider",)

    def _start(self) -> None:
        self._lock = Lock()
        super()._start()

    def _options(self) -> Mapping[str, str]:
        return {"device_id": str(self.settings.gpu)}

    def _options_with(self, switch: str) -> Any:
        options = super()._options_with(switch)
        options.enable_mem_pattern = False  # DirectML supports neither this nor parallel execution
        options.execution_mode = self._onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        return options

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        with self._lock:  # its sessions may not be run by two threads at once
            return super()._compute(inputs)


def _only_started(providers: Sequence[str]) -> str:
    return f"onnxruntime started only {', '.join(providers)}; what it printed above says why"
