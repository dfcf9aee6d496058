"""Graphs that OpenVINO runs itself, without onnxruntime between: a third of the memory, and it loads faster.

What it compiles from a graph is kept in a cache folder, one file (a blob, in OpenVINO's words) for each
graph, precision, version of OpenVINO and CPU. It is mapped into memory when the same graph is loaded again.
"""

import contextlib
import functools
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.devices import Settings, import_openvino
from galip_runtime.errors import FileRefused, ProviderUnavailable
from galip_runtime.graph import Graph, GraphFile
from galip_runtime.manifest import TensorSpec

__all__ = ["OpenvinoGraph", "openvino_core", "openvino_settings"]

_log = logging.getLogger("galip_runtime")

_KEPT_BLOBS = 16
_TYPES = {"f32": "float32", "i64": "int64"}


def openvino_settings(precision: str, threads: int, bf16: bool) -> dict[str, Any]:
    """OpenVINO's properties for one run at a time in `precision` on `threads` threads.

    Unless it is told, OpenVINO takes the precision that it thinks best for the CPU. What int8 leaves in float
    is in bf16 where the CPU has it (`bf16`). A thread pinned to a core would share it with other models.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 and precision in ("bf16", "int8") else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's library of devices: one a process, and never given back.

    On CPUs with AMX it sets a stack for signals as it starts, and frees that at its end without taking it
    back: the next Ctrl-C would be a segmentation fault (2026.4).
    """
    openvino = import_openvino()
    try:
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")
    except RuntimeError as error:
        raise ProviderUnavailable(f"OpenVINO does not start: {error}") from error
    return core


class OpenvinoGraph(Graph):
    """A graph that OpenVINO runs on the CPU."""

    def __init__(
        self,
        file: GraphFile,
        settings: Settings,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        """Raises ProviderUnavailable where OpenVINO does not start or the CPU lacks the precision.

        Raises FileRefused where the file holds no graph that OpenVINO can run, or its inputs and outputs are
        others.
        """
        super().__init__(file, settings, inputs, outputs)
        openvino, core = import_openvino(), openvino_core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._bf16 = "BF16" in able
        if file.precision == "bf16" and not self._bf16:
            raise ProviderUnavailable("this CPU has no bf16: use another precision, such as fp32")
        self.providers = [f"OpenVINO {openvino.__version__}"]
        compiled = self._compiled(openvino, core)
        self._check_tensors(_described(compiled.inputs), _described(compiled.outputs))
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        with self._lock:  # a run takes all threads; two at a time would only wait for each other
            result: npt.NDArray[np.float32] = self._request.infer(inputs, share_inputs=True)[0]
        return result

    def _compiled(self, openvino: Any, core: Any) -> Any:
        """The compiled graph, from the cache if it is there, else to be found there the next time."""
        properties = openvino_settings(self.file.precision, self.settings.threads, self._bf16)
        if self.settings.cache is None:
            return self._compile(core, properties)
        key = self._key(openvino, core)
        for blob in self.settings.cache.glob(f"{key}-*.blob"):
            try:
                if blob.stat().st_size == int(blob.stem.rpartition("-")[2]):
                    data = np.memmap(blob, np.uint8, mode="c")  # OpenVINO takes no read-only memory
                    tensor = openvino.Tensor(data, shared_memory=True)
                    compiled = core.import_model(tensor, "CPU", properties)
                    self._blob = data, tensor  # it reads from there as long as it runs
                    os.utime(blob)  # the ones used last are kept
                    return compiled
            except (OSError, RuntimeError, ValueError) as error:
                _log.warning("%s is not used and compiled anew: %s", blob, error)
        compiled = self._compile(core, properties)
        try:
            _store(self.settings.cache, key, compiled)
        except OSError as error:  # a full disk, a folder of somebody else: the model works all the same
            _log.warning("%s cannot keep what OpenVINO compiled: %s", self.settings.cache, error)
        return compiled

    def _key(self, openvino: Any, core: Any) -> str:
        """All that a blob depends on; not the number of threads."""
        cpu = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        parts = [self.file.sha256, self.file.precision, names, openvino.get_version(), cpu]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _compile(self, core: Any, properties: dict[str, Any]) -> Any:
        try:
            model = core.read_model(self.file.path)
            return core.compile_model(_cut(model, self.inputs, self.outputs), "CPU", properties)
        except RuntimeError as error:
            raise FileRefused(
                f"OpenVINO cannot load {self.file.spec.file}: {error}. Export it again"
            ) from error


def _cut(model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Any:
    """The part of `model` that computes `outputs` from `inputs`, any tensors of it by name."""
    from openvino import Model, opset13

    named = {
        name: output for node in model.get_ordered_ops() for output in node.outputs() for name in output.names
    }
    own = {name: result for result in model.results for name in result.output(0).names}
    results = [own.get(tensor.name) or opset13.result(named[tensor.name]) for tensor in outputs]
    parameters = []
    for tensor in inputs:
        output = named[tensor.name]
        if output.node.get_type_name() == "Parameter":
            parameters.append(output.node)
            continue
        parameter = opset13.parameter(output.partial_shape, output.element_type)
        for reader in output.get_target_inputs():
            reader.replace_source_output(parameter.output(0))
        parameter.output(0).set_names({tensor.name})
        parameters.append(parameter)
    return Model(results, parameters, model.friendly_name)


def _store(folder: Path, key: str, compiled: Any) -> None:
    """Write a blob, whole or not at all; those not used for longest make room."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(6)}.tmp"
    try:
        data = compiled.export_model().getbuffer()
        temporary.write_bytes(data)
        os.replace(temporary, folder / f"{key}-{len(data)}.blob")
    finally:
        temporary.unlink(missing_ok=True)
    blobs = sorted(folder.glob("*.blob"), key=lambda blob: blob.stat().st_mtime, reverse=True)
    for old in blobs[_KEPT_BLOBS:]:
        with contextlib.suppress(OSError):  # another process has removed it, or maps it (Windows)
            old.unlink()


def _described(ports: Sequence[Any]) -> list[tuple[Any, ...]]:
    """(name, dtype, sizes) of each; None for a dynamic size."""
    return [
        (
            port.any_name,
            _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
        )
        for port in ports
    ]
