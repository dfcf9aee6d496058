"""Whether a device works: it runs a graph of one addition. TensorRT only starts its package and the GPU."""

import tempfile
from pathlib import Path

import numpy as np

from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.devices import candidates, create_runner, parse_device, runs_engines
from galip_runtime.backends.engines import engine_targets
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.bundle.manifest import GraphSpec, TensorSpec, file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.onnx_writer import FLOAT, model, node, value
from galip_runtime.errors import GalipError

__all__ = ["why_not"]

_INPUT, _OUTPUT = 11, 12
_SHAPE = ("N", 4)


def why_not(device: str) -> str | None:
    """Explain why graphs do not run on `device`, one of `DEVICES` except `auto`; None where they do."""
    x, y = (TensorSpec(name, "float32", _SHAPE) for name in ("x", "y"))
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    try:
        name, gpu = parse_device(device)
        row = DEVICE_TABLE[name]
        candidates(name, row.precisions[0])
        stream = Stream(gpu) if row.on_stream else None
        if runs_engines(name):  # an engine takes seconds to build
            engine_targets(gpu)
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.onnx"
            ends = [value(_INPUT, "x", FLOAT, _SHAPE), value(_OUTPUT, "y", FLOAT, _SHAPE)]
            path.write_bytes(model("probe", [node("Add", ["x", "x"], "y"), *ends], opset=18))
            spec = GraphSpec(path.name, (x,), (y,), 18)
            file = GraphFile(path, "", spec, row.precisions[0], OnnxFile(path), file_signature(path))
            settings = Settings(name, 1, gpu, stream=stream)
            result = create_runner(file, settings, (x,), (y,)).run({"x": values})
    except GalipError as error:
        return str(error)
    except OSError as error:  # a system on which nothing can be written
        return f"there is no folder for a temporary file to try it with ({error}): set TMPDIR"
    if not np.array_equal(result, 2 * values):
        return f"it computes 1 + 1 as {result.ravel()[1]}"
    return None
