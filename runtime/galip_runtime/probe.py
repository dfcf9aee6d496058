"""Whether a device works: a graph of one addition is run on it; of TensorRT, package and GPU are started."""

import base64
import tempfile
from pathlib import Path

import numpy as np

from galip_runtime.cuda import Stream
from galip_runtime.devices import GPU_DEVICES, Settings, candidates, has_openvino, parse_device, runs_engines
from galip_runtime.engines import place_of
from galip_runtime.errors import GalipError
from galip_runtime.gpu_session import GpuSession
from galip_runtime.graph import GraphFile
from galip_runtime.manifest import GraphSpec, TensorSpec, stamp
from galip_runtime.onnx_file import OnnxFile
from galip_runtime.openvino_graph import OpenvinoGraph
from galip_runtime.session import Session

__all__ = ["why_not"]

_GRAPH = base64.b64decode(
    "CAgSADpKChUKAXgKAXgSAXkaBXR3aWNlIgNBZGQSBXByb2JlWhQKAXgSDwoNCAESCQoDEgFOCgIIBGIUCgF5Eg8KDQgBEgkKAxIBTgoC"
    "CARCBAoAEBI="
)
"""ONNX: y = x + x, float32 (N, 4)"""


def why_not(device: str) -> str | None:
    """Why graphs do not run on `device`, one of `DEVICES` but `auto`; None where they do."""
    x = TensorSpec("x", "float32", ("N", 4))
    y = TensorSpec("y", "float32", ("N", 4))
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    try:
        name, gpu = parse_device(device)
        candidates(name, "fp32")
        stream = Stream(gpu) if name in GPU_DEVICES else None
        if name == "tensorrt" and runs_engines():  # an engine takes seconds to build
            place_of(gpu)
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.onnx"
            path.write_bytes(_GRAPH)
            spec = GraphSpec(path.name, (x,), (y,), 18)
            file = GraphFile(path, "", spec, "fp32", OnnxFile(path), stamp(path))
            kind = (
                OpenvinoGraph if name == "openvino" and has_openvino() else GpuSession if stream else Session
            )
            result = kind(file, Settings(name, 1, gpu, stream=stream), (x,), (y,)).run({"x": values})
    except GalipError as error:
        return str(error)
    if not np.array_equal(result, 2 * values):
        return f"it computes 1 + 1 as {result.ravel()[1]}"
    return None
