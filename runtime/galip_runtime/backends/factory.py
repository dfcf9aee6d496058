"""Which backend runs a graph on a device."""

from collections.abc import Sequence

from galip_runtime.backends.devices import Settings, has_openvino
from galip_runtime.backends.onnxruntime_gpu_runner import OnnxruntimeGpuRunner
from galip_runtime.backends.onnxruntime_runner import OnnxruntimeRunner
from galip_runtime.backends.openvino_runner import OpenvinoRunner
from galip_runtime.backends.runner import GraphFile, Runner
from galip_runtime.backends.tensorrt_runner import TensorrtRunner
from galip_runtime.bundle.manifest import TensorSpec

__all__ = ["create_runner"]


def create_runner(
    file: GraphFile, settings: Settings, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Runner:
    """The graph, ready to run: by TensorRT where it has an engine. Raises as `Runner`."""
    if settings.device == "openvino" and has_openvino():
        return OpenvinoRunner(file, settings, inputs, outputs)
    if settings.stream is None:
        return OnnxruntimeRunner(file, settings, inputs, outputs)
    return (TensorrtRunner if file.engine else OnnxruntimeGpuRunner)(file, settings, inputs, outputs)
