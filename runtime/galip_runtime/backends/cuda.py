"""CUDA memory, copies and CUDA graphs, with cuda-bindings and its errors raised."""

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.forks import Lock
from galip_runtime.hardware import gpus
from galip_runtime.install import pip_install

__all__ = ["PREPARING", "Buffer", "Memory", "Stream", "import_cuda"]

_Result = TypeVar("_Result")

_log = logging.getLogger("galip_runtime")

_Jobs = SimpleQueue[Callable[[], object] | None]

PREPARING = Lock()
"""held by any model that allocates or frees: doing so ends a CUDA graph's capture in another thread"""


def _serve(jobs: _Jobs) -> None:
    """Run a stream's `jobs` up to None. It must hold no reference to the stream or to a finished job."""
    while (job := jobs.get()) is not None:
        try:
            job()
        except Exception:  # from freeing: `run` hands its errors to the caller
            _log.exception("a GPU's memory or CUDA graph cannot be freed")
        del job


class _Life:
    """Held by a stream and by all that it still has to free; afterwards the stream and its thread end."""


def _free(free: Callable[..., object], arguments: tuple[object, ...], _life: _Life) -> None:
    with PREPARING:
        free(*arguments)


def import_cuda() -> ModuleType:
    """Import CUDA's runtime library. Raises ProviderUnavailable where cuda-bindings is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise ProviderUnavailable(
            f"cuda-bindings cannot be imported ({error}), which GPUs need beside onnxruntime or TensorRT: "
            f"{pip_install('cuda-bindings')}"
        ) from error
    module: ModuleType = runtime
    return module


class Stream:
    """A stream of one GPU with a thread of its own, which does all of a model's work in order.

    onnxruntime keeps CUDA graphs by the thread that captured them: another one would capture them again.
    """

    def __init__(self, gpu: int) -> None:
        """Start the GPU numbered `gpu`. Raises ProviderUnavailable where it does not start."""
        self.cuda, self.gpu = import_cuda(), gpu
        self._process, self._jobs = os.getpid(), _Jobs()
        # a daemon: it serves threads that outlive the main one, and lets the process end
        threading.Thread(target=_serve, args=(self._jobs,), name=f"galip on GPU {gpu}", daemon=True).start()
        self._life = _Life()
        weakref.finalize(self._life, self._jobs.put, None).atexit = False
        try:
            self.handle = self.run(self._create)
        except ProviderUnavailable as error:
            try:
                gpus()
            except OSError as missing:
                raise ProviderUnavailable(
                    f"there is no NVIDIA driver here ({missing}): install one, start a container with GPUs, "
                    "or use another device, such as cpu"
                ) from error
            raise ProviderUnavailable(
                f"GPU {gpu} does not start: {error}. nvidia-smi shows which GPUs and driver there are, "
                "galip doctor what is missing. A driver older than cuda-bindings needs older ones: "
                f"{pip_install('cuda-bindings<13')}"
            ) from error
        destroy = partial(self.cuda.cudaStreamDestroy, self.handle)
        weakref.finalize(self._life, self._jobs.put, destroy).atexit = False  # finalizers run last one first

    def _create(self) -> Any:
        self.call("cudaSetDevice", self.gpu)  # for this thread
        # it neither waits for other streams, the default one included, nor makes them wait
        return self.call("cudaStreamCreateWithFlags", self.cuda.cudaStreamNonBlocking)

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the stream's thread, and return or raise what it does.

        Raises ProviderUnavailable in a process that was forked from the model's.
        """
        if os.getpid() != self._process:
            raise ProviderUnavailable("the model was loaded before this process was forked: load it again")
        done: Future[_Result] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # for the caller to handle
                done.set_exception(error)

        self._jobs.put(job)
        return done.result()

    def free_after(self, owner: object, free: Callable[..., object], *arguments: object) -> None:
        """Call `free(*arguments)` in the stream's thread, behind all earlier work, once `owner` is garbage.

        The end of the process does not call it, since that frees everything.
        """
        weakref.finalize(owner, self._jobs.put, partial(_free, free, arguments, self._life)).atexit = False

    def call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA's function `name` and return its result. Raises ProviderUnavailable with its error."""
        error, *results = getattr(self.cuda, name)(*arguments)
        if int(error):
            _, why = self.cuda.cudaGetErrorString(error)
            raise ProviderUnavailable(f"{name} failed on GPU {self.gpu}: {error.name} ({why.decode()})")
        return results[0] if results else None

    def wait(self) -> None:
        """Wait until all queued work is done."""
        self.call("cudaStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return `work`, which only queues on this stream, as a CUDA graph: one launch instead of many."""
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.handle, mode)
        try:
            work()
        except BaseException:
            _, graph = self.cuda.cudaStreamEndCapture(self.handle)
            if graph:
                self.cuda.cudaGraphDestroy(graph)
            raise
        graph = self.call("cudaStreamEndCapture", self.handle)
        try:
            launch = self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)
        return _Replay(self, launch)


class _Replay:
    """A captured CUDA graph."""

    def __init__(self, stream: Stream, launch: Any) -> None:
        self._stream, self._launch = stream, launch
        stream.free_after(self, stream.cuda.cudaGraphExecDestroy, launch)

    def __call__(self) -> None:
        """Queue it."""
        self._stream.call("cudaGraphLaunch", self._launch, self._stream.handle)


class Memory:
    """A GPU's memory; freed with the object."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Allocate `size` bytes. Raises ProviderUnavailable where the GPU does not have them."""
        self.size = size
        self.address = int(stream.call("cudaMalloc", max(size, 1)))
        stream.free_after(self, stream.cuda.cudaFree, self.address)


class Buffer:
    """Memory of a GPU and as much pinned memory of the host, with queued copies between them."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Allocate `size` bytes of both. Raises ProviderUnavailable where there is not enough."""
        self._stream = stream
        self.device = Memory(stream, size)
        self._host = int(stream.call("cudaMallocHost", size))
        stream.free_after(self, stream.cuda.cudaFreeHost, self._host)

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the start of the host's memory as an array, which must not outlive the buffer."""
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
