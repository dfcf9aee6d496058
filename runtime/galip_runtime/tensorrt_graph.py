"""Graphs that TensorRT runs from a bundle's engines, without onnxruntime between.

Copies and work are queued one by one for a shape's first run, from the second on as one CUDA graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

from galip_runtime.cuda import Memory, Stream
from galip_runtime.engines import import_tensorrt
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.gpu_graph import GpuGraph, Shapes
from galip_runtime.manifest import TensorSpec

__all__ = ["TensorrtGraph"]


class TensorrtGraph(GpuGraph):
    """A graph that TensorRT runs."""

    def _open(self) -> None:
        assert self.file.engine is not None
        self._record = self.file.engine.record
        package, trt = import_tensorrt(self._record.package)
        self._trt = trt
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(self.file.engine.plan.read_bytes())
        if self._engine is None:
            raise ProviderUnavailable(
                f"{package} {trt.__version__} does not load {self._record.plan}; what it printed says why"
            )
        self.providers = [f"TensorRT {trt.__version__} ({package})"]
        self._check_tensors(*self._described())
        self._largest = max(profile.max for profile in self._record.profiles)
        # each shape has a context of its own, as CUDA graphs need; they run one by one in the same memory
        self._memory = Memory(self._stream, self._engine.device_memory_size_v2)

    def _described(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Inputs and outputs: (name, dtype, sizes), None for a dynamic size."""
        trt, engine = self._trt, self._engine
        types = {trt.DataType.FLOAT: "float32", trt.DataType.INT64: "int64", trt.DataType.UINT8: "uint8"}
        found: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            sizes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            dtype = engine.get_tensor_dtype(name)
            is_output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
            found[is_output].append((name, types.get(dtype, str(dtype)), sizes))
        return found

    def _prepare(self, shapes: Shapes, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        context.set_device_memory(self._memory.address, self._memory.size)
        profiles = self._record.profiles
        profile = next(number for number, each in enumerate(profiles) if each.max >= shapes[0][0])
        context.set_optimization_profile_async(profile, self._stream.handle)
        for each, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(each.name, shape):
                raise ProviderUnavailable(f"{self._record.plan} takes no {each.name} of shape {shape}")
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.device.address)

        def work() -> None:
            if not context.execute_async_v3(self._stream.handle):
                raise ProviderUnavailable(f"TensorRT failed to run {self._record.plan}")

        return work

    def _replayed(self, queue: Callable[[], None]) -> Callable[[], None]:
        return _Replayed(self._stream, queue)


class _Replayed:
    """One shape's work: queued as it is the first time, when TensorRT prepares, then as a CUDA graph."""

    def __init__(self, stream: Stream, queue: Callable[[], None]) -> None:
        self._stream, self._queue, self._warm = stream, queue, False
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Queue it."""
        if not self._warm:
            self._queue()
            self._warm = True
            return
        if self._replay is None:
            self._replay = self._stream.captured(self._queue)
        self._replay()
