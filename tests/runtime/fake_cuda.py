"""A GPU whose memory is the host's: stand-ins for cuda-bindings and for onnxruntime's CUDA provider.

They compute on the CPU and refuse what the real ones would. Tests with them check the order of calls, shapes
and addresses, not CUDA.
"""

import ctypes
import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import ClassVar, NamedTuple

import numpy as np
import onnxruntime
from galip_runtime.backends import onnxruntime_gpu_runner, tensorrt_runner

STAND_IN = os.environ.get("GALIP_GPU") == "stand-in"
"""whether the tests for GPUs run on this stand-in, to test the tests"""
STREAM = 77
CONFLICT = "fallback to CPU EP has been explicitly disabled by the user"


class Error:
    """One of CUDA's errors."""

    def __init__(self, number, name):
        self.number, self.name = number, name

    def __int__(self):
        return self.number


class Cuda(ModuleType):
    """A stand-in for cuda.bindings.runtime, whose streams do all work at once."""

    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=2)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self):
        super().__init__("cuda.bindings.runtime")
        self.freed = []
        """`memory` and `stream`, in the order in which they were freed"""
        self.memory, self.capturing, self.launches, self.streams = {}, None, 0, 0

    def queue(self, work):
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def cudaGetErrorString(self, error):
        return 0, b"CUDA's explanation"

    def cudaSetDevice(self, gpu):
        return (0,)

    cudaStreamNonBlocking = 1

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        self.streams += 1
        return 0, STREAM

    def cudaStreamDestroy(self, stream):
        self.freed.append("stream")
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream):
        assert self.capturing is None
        return (0,)

    def cudaMemGetInfo(self):
        return 0, 2**40 - sum(map(len, self.memory.values())), 2**40

    def cudaMalloc(self, size):
        assert self.capturing is None
        memory = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        self.freed.append("memory")
        del self.memory[address]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        for address in (target, source):
            assert size <= len(self.memory[address])
        self.queue(lambda: ctypes.memmove(target, source, size))
        return (0,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        graph, self.capturing = self.capturing, None
        return 0, graph

    def cudaGraphInstantiate(self, graph, flags):
        return 0, list(graph)

    def cudaGraphDestroy(self, graph):
        return (0,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        for work in graph:
            self.queue(work)
        return (0,)


def install(monkeypatch, cuda):
    """Let `import cuda.bindings.runtime` return `cuda`."""
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr("galip_runtime.backends.cuda.gpus", lambda: ["a GPU"])


def wait_for(condition):
    """Wait until a stream's thread has fulfilled `condition`, 10 seconds at most."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition is still false after 10 seconds")


def pretend(monkeypatch):
    """Install a GPU, `Cuda`, and providers of onnxruntime for it; return the `Cuda`."""
    cuda = Cuda()
    install(monkeypatch, cuda)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _session)
    onnxruntime_gpu_runner.preload_libraries.cache_clear()
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libfoo.so"), raising=False)
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: False)
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(CudaSession, "sessions", [])
    return cuda


def _session(model, sess_options=None, providers=(), **more):
    gpu = any("CUDA" in str(provider) for provider in providers)
    return (CudaSession if gpu else CudaSession.real)(model, sess_options, providers=providers, **more)


class Tensor(NamedTuple):
    """A tensor in a GPU's memory."""

    device: str
    gpu: int
    dtype: str
    shape: tuple[int, ...]
    address: int


class Binding:
    """An I/O binding that records its tensors."""

    def __init__(self, binding):
        self.binding, self.tensors = binding, {}

    def bind_input(self, name, device, gpu, dtype, shape, address):
        self.tensors[name] = Tensor(device, gpu, str(dtype), tuple(shape), address)
        self.binding.bind_input(name, "cpu", 0, np.dtype(dtype), shape, address)

    def bind_output(self, name, device, gpu, dtype, shape, address):
        self.tensors[name] = Tensor(device, gpu, str(dtype), tuple(shape), address)
        self.binding.bind_output(name, "cpu", 0, np.dtype(dtype), shape, address)


class CudaSession(onnxruntime.InferenceSession):
    """A session of the CUDA provider, which leaves operators in `on_the_cpu` to the CPU."""

    sessions: ClassVar[list] = []
    starts = True
    on_the_cpu = ()
    real = onnxruntime.InferenceSession

    def __init__(self, model, options, providers, enable_fallback):
        assert not enable_fallback
        self.providers, names = dict(providers), [name for name, _ in providers]
        strict = "CPUExecutionProvider" not in names
        captures = any(options.get("enable_cuda_graph") == "1" for options in self.providers.values())
        if captures and "TensorrtExecutionProvider" in names:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        if self.on_the_cpu and captures and not strict:
            raise RuntimeError("This session cannot use the graph capture feature")
        if strict:
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        if strict and (self.on_the_cpu or not self.starts):
            raise RuntimeError(
                f"This session contains graph nodes that are assigned to the CPU, but {CONFLICT}"
            )
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        super().__init__(model, options, providers=["CPUExecutionProvider"])
        self.names = [*names[:-1], "CPUExecutionProvider"] if not strict else [*names, "CPUExecutionProvider"]
        self.cuda_graphs, self.thread = {}, threading.get_ident()
        self.sessions.append(self)

    def get_providers(self):
        return self.names if self.starts else ["CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        nodes = [node for part in super().get_provider_graph_assignment_info() for node in part.get_nodes()]
        on_the_cpu = [node for node in nodes if node.op_type in self.on_the_cpu]
        rest = [node for node in nodes if node.op_type not in self.on_the_cpu]
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda nodes=nodes: nodes)
            for name, nodes in (("CUDAExecutionProvider", rest), ("CPUExecutionProvider", on_the_cpu))
        ]

    def io_binding(self):
        return Binding(super().io_binding())

    def run_with_iobinding(self, binding, options):
        assert threading.get_ident() == self.thread  # in another thread onnxruntime would capture anew
        number = options.get_run_config_entry("gpu_graph_id")
        tensors = self.cuda_graphs.setdefault(number, binding.tensors)
        assert tensors == binding.tensors  # a CUDA graph is replayed on the tensors it was captured with
        super().run_with_iobinding(binding.binding, options)
