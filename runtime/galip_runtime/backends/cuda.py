"""CUDA memory, copies and graphs, as far as graphs on a GPU need them: cuda-bindings, its errors raised."""

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

__all__ = ["PREPARING", "Buffer", "Memory", "Stream", "import_cuda"]

_Result = TypeVar("_Result")

_log = logging.getLogger("galip_runtime")

_Jobs = SimpleQueue[Callable[[], object] | None]

PREPARING = Lock()
"""of all models: what one thread allocates or frees ends the capture of a CUDA graph in another"""


def _serve(jobs: _Jobs) -> None:
    """Do the `jobs` of a stream until there is None. It must not keep the stream, or what a job was about."""
    while (job := jobs.get()) is not None:
        try:
            job()
        except Exception:  # what is to be freed: `do` has its errors handled by the caller
            _log.exception("a GPU's memory or CUDA graph cannot be given back")
        del job


class _Life:
    """A stream's: held by it and by what is still to be freed. Then the stream goes, and its thread."""


def _free(free: Callable[..., object], arguments: tuple[object, ...], _life: _Life) -> None:
    with PREPARING:
        free(*arguments)


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
        self._process, self._jobs = os.getpid(), _Jobs()
        # a daemon: it serves threads that outlive the main one, and never keeps the process from ending
        threading.Thread(target=_serve, args=(self._jobs,), name=f"galip on GPU {gpu}", daemon=True).start()
        self._life = _Life()
        weakref.finalize(self._life, self._jobs.put, None).atexit = False
        try:
            self.handle = self.do(self._create)
        except ProviderUnavailable as error:
            try:
                gpus()
            except OSError as missing:
                raise ProviderUnavailable(
                    f"there is no NVIDIA driver here ({missing}): install it, start a container with GPUs, "
                    "or use another device, such as cpu"
                ) from error
            raise ProviderUnavailable(
                f"GPU {gpu} does not start: {error}. nvidia-smi shows which GPUs and driver there are, "
                "galip doctor what is missing. A driver older than cuda-bindings needs an older one of them: "
                "pip install 'cuda-bindings<13'"
            ) from error
        destroy = partial(self.cuda.cudaStreamDestroy, self.handle)
        weakref.finalize(self._life, self._jobs.put, destroy).atexit = False  # finalizers run last one first

    def _create(self) -> Any:
        self.call("cudaSetDevice", self.gpu)  # of this thread
        # work in other streams, the default one too, neither waits for it nor is waited for
        return self.call("cudaStreamCreateWithFlags", self.cuda.cudaStreamNonBlocking)

    def do(self, work: Callable[[], _Result]) -> _Result:
        """What `work` gives or raises, once the stream's thread has come to it.

        Raises ProviderUnavailable in a process that was forked from the model's.
        """
        if os.getpid() != self._process:
            raise ProviderUnavailable("the model was loaded before this process was forked: load it anew")
        done: Future[_Result] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # the caller's to handle
                done.set_exception(error)

        self._jobs.put(job)
        return done.result()

    def after(self, owner: object, free: Callable[..., object], *arguments: object) -> None:
        """When `owner` is no more, `free` what it had: in the stream's thread, behind the work before.

        Not at the end of the process, which frees everything.
        """
        weakref.finalize(owner, self._jobs.put, partial(_free, free, arguments, self._life)).atexit = False

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
    """A CUDA graph that was captured."""

    def __init__(self, stream: Stream, launch: Any) -> None:
        self._stream, self._launch = stream, launch
        stream.after(self, stream.cuda.cudaGraphExecDestroy, launch)

    def __call__(self) -> None:
        """Queue it."""
        self._stream.call("cudaGraphLaunch", self._launch, self._stream.handle)


class Memory:
    """Memory of a GPU; given back when nobody has it any more."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Raises ProviderUnavailable where the GPU has not got it."""
        self.size = size
        self.address = int(stream.call("cudaMalloc", max(size, 1)))
        stream.after(self, stream.cuda.cudaFree, self.address)


class Buffer:
    """Memory of a GPU, and as much of the host's, pinned: copies between them are queued."""

    def __init__(self, stream: Stream, size: int) -> None:
        """Raises ProviderUnavailable where there is not so much."""
        self._stream = stream
        self.device = Memory(stream, size)
        self._host = int(stream.call("cudaMallocHost", size))
        stream.after(self, stream.cuda.cudaFreeHost, self._host)

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
