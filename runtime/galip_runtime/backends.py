"""Which backend runs a graph on a device."""

from collections.abc import Sequence

from galip_runtime.devices import Settings, has_openvino
from galip_runtime.gpu_session import GpuSession
from galip_runtime.graph import Graph, GraphFile
from galip_runtime.manifest import TensorSpec
from galip_runtime.openvino_graph import OpenvinoGraph
from galip_runtime.session import Session
from galip_runtime.tensorrt_graph import TensorrtGraph

__all__ = ["start"]


def start(
    file: GraphFile, settings: Settings, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Graph:
    """The graph, ready to run: by TensorRT where it has an engine. Raises as `Graph`."""
    if settings.device == "openvino" and has_openvino():
        return OpenvinoGraph(file, settings, inputs, outputs)
    if settings.stream is None:
        return Session(file, settings, inputs, outputs)
    return (TensorrtGraph if file.engine else GpuSession)(file, settings, inputs, outputs)
