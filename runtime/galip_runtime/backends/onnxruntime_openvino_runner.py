"""OpenVINO as a provider of onnxruntime, where OpenVINO itself is not installed."""

import json
from typing import Any

from galip_runtime.backends.assignment import CPU, Provider
from galip_runtime.backends.onnxruntime_runner import OnnxruntimeRunner
from galip_runtime.backends.openvino_runner import openvino_computes_in, openvino_settings

__all__ = ["OnnxruntimeOpenvinoRunner"]


class OnnxruntimeOpenvinoRunner(OnnxruntimeRunner):
    """Runs a graph with onnxruntime's OpenVINO provider on the CPU; nodes that it leaves run there, too.

    Its option `cache_dir` is not used: onnxruntime-openvino 1.24 writes there every time and loads no faster.
    """

    needs = "onnxruntime's OpenVINOExecutionProvider"
    execution_providers = ("OpenVINOExecutionProvider",)
    captions_at_once = 1

    @classmethod
    def computes_in(cls, precision: str) -> bool:
        """Return whether OpenVINO computes in `precision` on this CPU."""
        return openvino_computes_in(precision)

    def _session_options(self) -> Any:
        options = super()._session_options()
        # OpenVINO optimises by itself, and onnxruntime's optimisations get in its way
        options.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _providers(self) -> list[Provider]:
        properties = {"CPU": openvino_settings(self.file.precision, self.settings.threads)}
        options = {"device_type": "CPU", "load_config": json.dumps(properties)}
        return [(self.execution_providers[0], options), CPU]
