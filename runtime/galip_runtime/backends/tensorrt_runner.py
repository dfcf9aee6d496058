"""Graphs that TensorRT runs from a bundle's engines, without onnxruntime in between.

The first run of a shape queues copies and kernels one by one; later runs replay them as one CUDA graph.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from galip_runtime.backends.cuda import Memory
from galip_runtime.backends.engines import has_tensorrt, import_tensorrt
from galip_runtime.backends.gpu_runner import GpuRunner, Key
from galip_runtime.backends.runner import GraphFile
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import ProviderUnavailable

__all__ = ["TensorrtRunner"]

_log = logging.getLogger("galip_runtime")


class TensorrtRunner(GpuRunner):
    """Runs a graph from its engine with TensorRT."""

    needs = "TensorRT"
    _most_shapes = 16

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether one of TensorRT's packages is installed; it may be a placeholder."""
        return has_tensorrt()

    @classmethod
    def can_run(cls, file: GraphFile) -> bool:
        """Return whether the graph comes with an engine for this GPU."""
        return file.engine is not None

    def _open(self) -> None:
        assert self.file.engine is not None
        self._record = self.file.engine.record
        package, trt = import_tensorrt(self._record.package)
        self._trt = trt
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(self.file.engine.plan.read_bytes())
        if engine is None:
            raise ProviderUnavailable(
                f"{package} {trt.__version__} does not load {self._record.plan}; see what it printed above"
            )
        self._native |= {"runtime": runtime, "engine": engine}
        self.providers = [f"TensorRT {trt.__version__} ({package})"]
        self._check_tensors(*self._described(engine))
        self._largest = max(profile.max for profile in self._record.profiles)
        # CUDA graphs need a context for each shape; contexts run one by one and share this memory
        self._memory = Memory(self._stream, engine.device_memory_size_v2)

    def _described(self, engine: Any) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return the inputs and outputs as (name, dtype, sizes), None for a dynamic size."""
        trt = self._trt
        types = {trt.DataType.FLOAT: "float32", trt.DataType.INT64: "int64", trt.DataType.UINT8: "uint8"}
        tensors: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            sizes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            dtype = engine.get_tensor_dtype(name)
            is_output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
            tensors[is_output].append((name, types.get(dtype, str(dtype)), sizes))
        return tensors

    def _prepare(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        native, plan, stream, shapes = self._native, self._record.plan, self._stream.handle, key[0]
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = native[key] = native["engine"].create_execution_context(strategy)
        context.set_device_memory(self._memory.address, self._memory.size)
        profiles = self._record.profiles
        number = next(number for number, profile in enumerate(profiles) if profile.max >= shapes[0][0])
        context.set_optimization_profile_async(number, stream)
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(spec.name, shape):
                raise ProviderUnavailable(f"{plan} takes no {spec.name} of shape {shape}")
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.device.address)

        def run() -> None:
            if not native[key].execute_async_v3(stream):
                raise ProviderUnavailable(f"TensorRT failed to run {plan}")

        return run

    def _optimized(self, queue: Callable[[], None]) -> Callable[[], None]:
        try:
            return self._stream.capture(queue)
        except ProviderUnavailable as error:
            _log.warning("%s runs without a CUDA graph: %s", self._record.plan, error)
            return queue
