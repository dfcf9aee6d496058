"""Graphs that TensorRT runs from a bundle's engines, without onnxruntime between.

Copies and work of a graph are queued on one stream; from a shape's second run on as one CUDA graph.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.cuda import Buffer, Memory, Stream
from galip_runtime.engines import import_tensorrt
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.graph import Graph

__all__ = ["TensorrtGraph"]

_KEPT_SHAPES = 16
"""shapes whose CUDA graph is kept: those used last"""

_Inputs = dict[str, npt.NDArray[Any]]
_Shapes = tuple[tuple[int, ...], ...]


class TensorrtGraph(Graph):
    """A graph that TensorRT runs."""

    def _start(self) -> None:
        assert self.file.engine is not None
        self._record = self.file.engine.record
        package, trt = import_tensorrt(self._record.package)
        self._trt, self._stream = trt, Stream(self.settings.gpu)
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(self.file.engine.plan.read_bytes())
        if self._engine is None:
            raise ProviderUnavailable(
                f"{package} {trt.__version__} does not load {self._record.plan}; what it printed says why"
            )
        self.providers = [f"TensorRT {trt.__version__} ({package})"]
        self._check_tensors(*self._described())
        self._largest = max(profile.max for profile in self._record.profiles)
        self._buffers = {each.name: Buffer(self._stream, self._size(each.name)) for each in self.inputs}
        (output,) = self.outputs
        self._buffers[output.name] = Buffer(self._stream, 4 * self._largest * int(np.prod(self._picture)))
        # each shape has a context of its own, as CUDA graphs need; they run one by one in the same memory
        self._memory = Memory(self._stream, self._engine.device_memory_size_v2)
        self._prepared: OrderedDict[_Shapes, _Prepared] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def _picture(self) -> tuple[int, ...]:
        """The output's sizes but for the batch."""
        return tuple(int(size) for size in self.outputs[0].shape[1:])

    def _size(self, name: str) -> int:
        """Bytes of an input of the largest shape that any profile takes."""
        profiles = range(len(self._record.profiles))
        numbers = [int(np.prod(self._engine.get_tensor_profile_shape(name, each)[2])) for each in profiles]
        return max(numbers) * (8 if self._engine.get_tensor_dtype(name) == self._trt.DataType.INT64 else 4)

    def _described(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Inputs and outputs: (name, dtype, sizes), None for a dynamic size."""
        trt, engine = self._trt, self._engine
        types = {trt.DataType.FLOAT: "float32", trt.DataType.INT64: "int64"}
        found: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            sizes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            dtype = engine.get_tensor_dtype(name)
            is_output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
            found[is_output].append((name, types.get(dtype, str(dtype)), sizes))
        return found

    def _compute(self, inputs: _Inputs) -> npt.NDArray[np.float32]:
        count = len(inputs[self.inputs[0].name])
        with self._lock:  # one stream, and buffers that the next run writes over
            self._stream.use()
            parts = [
                self._run({name: rows[start : start + self._largest] for name, rows in inputs.items()})
                for start in range(0, count, self._largest)
            ]
        return np.concatenate(parts)

    def _run(self, inputs: _Inputs) -> npt.NDArray[np.float32]:
        """At most as many rows as the largest profile takes."""
        for name, rows in inputs.items():
            self._buffers[name].array(rows.dtype, rows.shape)[...] = rows
        shapes = tuple(inputs[each.name].shape for each in self.inputs)
        if shapes not in self._prepared:
            self._prepared[shapes] = _Prepared(self._work(inputs, shapes))
        self._prepared.move_to_end(shapes)
        self._prepared[shapes].run(self._stream)
        self._stream.wait()
        while len(self._prepared) > _KEPT_SHAPES:
            self._prepared.popitem(last=False)
        shape = (shapes[0][0], *self._picture)
        return self._buffers[self.outputs[0].name].array(np.float32, shape).copy()

    def _work(self, inputs: _Inputs, shapes: _Shapes) -> Callable[[], None]:
        """What queues copies and work for inputs of these shapes."""
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
        sizes = {name: rows.nbytes for name, rows in inputs.items()}
        output = self.outputs[0].name
        given = 4 * shapes[0][0] * int(np.prod(self._picture))

        def work() -> None:
            for name, size in sizes.items():
                self._buffers[name].to_device(size)
            if not context.execute_async_v3(self._stream.handle):
                raise ProviderUnavailable(f"TensorRT failed to run {self._record.plan}")
            self._buffers[output].to_host(given)

        return work


class _Prepared:
    """One shape's work: queued as it is the first time, when TensorRT prepares, then as a CUDA graph."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._warm = work, False
        self._replay: Callable[[], None] | None = None

    def run(self, stream: Stream) -> None:
        """Queue it."""
        if not self._warm:
            self._work()
            self._warm = True
            return
        if self._replay is None:
            self._replay = stream.captured(self._work)
        self._replay()
