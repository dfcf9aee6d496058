"""cuda.bindings.runtime on the stub of CUDA's runtime library."""

import ctypes
import sys
from types import ModuleType, SimpleNamespace

LIBRARY = ctypes.CDLL("libcudart.so.13")
SIZE, ADDRESS = ctypes.c_size_t, ctypes.c_void_p


class Error(int):
    name = "cudaError"


def giving(name, *types):
    """A function whose first argument is where its result goes."""

    def call(*values):
        result = ADDRESS()
        given = [kind(value) for kind, value in zip(types, values, strict=True)]
        return Error(getattr(LIBRARY, name)(ctypes.byref(result), *given)), result.value

    return call


def doing(name, *types):
    def call(*values):
        given = [kind(value) for kind, value in zip(types, values, strict=True)]
        return (Error(getattr(LIBRARY, name)(*given)),)

    return call


def install():
    runtime = ModuleType("cuda.bindings.runtime")
    runtime.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    runtime.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    runtime.cudaGetErrorString = lambda error: (0, b"refused by the stub")
    runtime.cudaSetDevice = doing("cudaSetDevice", ctypes.c_int)
    runtime.cudaStreamNonBlocking = 1
    runtime.cudaStreamCreateWithFlags = giving("cudaStreamCreateWithFlags", ctypes.c_uint)
    runtime.cudaStreamDestroy = doing("cudaStreamDestroy", ADDRESS)
    runtime.cudaStreamSynchronize = doing("cudaStreamSynchronize", ADDRESS)
    runtime.cudaMalloc, runtime.cudaFree = giving("cudaMalloc", SIZE), doing("cudaFree", ADDRESS)
    runtime.cudaMallocHost, runtime.cudaFreeHost = (
        giving("cudaMallocHost", SIZE),
        doing("cudaFreeHost", ADDRESS),
    )
    runtime.cudaMemcpyAsync = doing("cudaMemcpyAsync", ADDRESS, ADDRESS, SIZE, ctypes.c_int, ADDRESS)
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime
    sys.modules |= {"cuda": ModuleType("cuda"), "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
