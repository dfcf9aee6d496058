"""CUDA memory, copies and graphs, as far as graphs on a GPU need them: cuda-bindings, its errors raised."""

import ctypes
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import ProviderUnavailable

__all__ = ["Buffer", "Memory", "Stream", "import_cuda"]

_Result = TypeVar("_Result")


def import_cuda() -> ModuleType:
    """CUDA's runtime library. Raises ProviderUnavailable where cuda-bindings is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise ProviderUnavailable(
            f"cuda-bindings cannot be imported ({error}), which GPUs take beside onnxruntime or TensorRT: "
            "pip install cuda-bindings"
        ) from error
    module: ModuleType = runtime
    return module


class Stream:
    """A stream of one GPU, in which all of a model's work is done in order, by a thread of its own.

    onnxruntime keeps CUDA graphs by the thread that captured them: from another it would capture them anew.
    """

    def __init__(self, gpu: int) -> None:
        """Raises ProviderUnavailable where the GPU does not start."""
        self.cuda, self.gpu = import_cuda(), gpu
        self._thread = ThreadPoolExecutor(1, f"galip on GPU {gpu}")
        weakref.finalize(self, self._thread.shutdown, wait=False)
        try:
            self.handle = self.do(self._create)
        except ProviderUnavailable as error:
            raise ProviderUnavailable(
                f"GPU {gpu} does not start: {error}. nvidia-smi shows which GPUs and driver there are, "
                "galip doctor what is missing"
            ) from error
        weakref.finalize(self, self.cuda.cudaStreamDestroy, self.handle)

    def do(self, work: Callable[[], _Result]) -> _Result:
        """What `work` gives or raises, when the stream's thread has come to it."""
        return self._thread.submit(work).result()

    def _create(self) -> Any:
        self.call("cudaSetDevice", self.gpu)  # of this thread
        return self.call("cudaStreamCreate")

    def call(self, name: str, *arguments: Any) -> Any:
        """What CUDA's function gives. Raises ProviderUnavailable with its error."""
        error, *results = getattr(self.cuda, name)(*arguments)
        if int(error):
            _, why = self.cuda.cudaGetErrorString(error)
            raise ProviderUnavailable(f"{name} failed on GPU {self.gpu}: {error.name} ({why.decode()})")
        return results[0] if results else None

    def wait(self) -> None:
        """Until all work is done."""
        self.call("cudaStreamSynchronize", self.handle)

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, which only queues on this stream, as a CUDA graph: one launch instead of many."""
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.handle, mode)
        try:
            work()
        finally:
            graph = self.call("cudaStreamEndCapture", self.handle)
        launch = self.call("cudaGraphInstantiate", graph, 0)
        self.call("cudaGraphDestroy", graph)
        replay = _Replay(self, launch)
        weakref.finalize(replay, self.cuda.cudaGraphExecDestroy, launch)
        return replay


class _Replay:
    def __init__(self, stream: Stream, launch: Any) -> None:
        self._stream, self._launch = stream, launch

    def __call__(self) -> None:
        """Queue it."""
        self._stream.call("cudaGraphLaunch", self._launch, self._stream.handle)


class Memory:
    """Memory of a GPU; given back when nobody has it any more."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Raises ProviderUnavailable where the GPU has not got it."""
        self.size = size
        self.address = int(stream.call("cudaMalloc", max(size, 1)))
        weakref.finalize(self, stream.cuda.cudaFree, self.address)


class Buffer:
    """Memory of a GPU, and as much of the host's, pinned: copies between them are queued."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Raises ProviderUnavailable where there is not so much."""
        self._stream = stream
        self.device = Memory(stream, size)
        self._host = int(stream.call("cudaMallocHost", size))
        weakref.finalize(self, stream.cuda.cudaFreeHost, self._host)

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The beginning of the host's memory as an array, which must not outlive the buffer."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= self.device.size, (size, self.device.size)
        memory = (ctypes.c_char * size).from_address(self._host)
        return np.frombuffer(memoryview(memory).cast("B"), np.dtype(dtype)).reshape(shape)

    def to_device(self, size: int) -> None:
        """Queue a copy of the first `size` bytes."""
        self._copy(self.device.address, self._host, size, "cudaMemcpyHostToDevice")

    def to_host(self, size: int) -> None:
        """Queue a copy of the first `size` bytes."""
        self._copy(self._host, self.device.address, size, "cudaMemcpyDeviceToHost")

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        stream = self._stream
        how = getattr(stream.cuda.cudaMemcpyKind, kind)
        stream.call("cudaMemcpyAsync", target, source, size, how, stream.handle)
