"""Graphs that onnxruntime runs on a GPU, with all nodes, inputs and outputs there and a CUDA graph a shape.

onnxruntime captures a CUDA graph for each `gpu_graph_id`. Batches are padded to a few sizes, so that neither
CUDA graphs nor their memory pile up.
"""

import contextlib
import functools
import io
import itertools
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from galip_runtime.backends.assignment import NO_CPU, Provider, why_not_here
from galip_runtime.backends.gpu_runner import GpuRunner, Key
from galip_runtime.backends.libraries import import_onnxruntime, onnxruntime_providers
from galip_runtime.backends.onnxruntime_runner import described, session_options
from galip_runtime.backends.pixels import with_pixels
from galip_runtime.backends.runner import Settings
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.install import pip_install

__all__ = [
    "CudaRunner",
    "OnnxruntimeGpuRunner",
    "OnnxruntimeTensorrtRunner",
    "cuda_options",
    "preload_libraries",
]

_log = logging.getLogger("galip_runtime")

_MEMORY = "cuda"
"""onnxruntime's name for where bound tensors lie"""
_DISABLED = "GatherSliceToSplitFusion"
"""an optimization whose nodes copy from host memory, which a CUDA graph finds overwritten"""


class OnnxruntimeGpuRunner(GpuRunner):
    """Runs a graph with one of onnxruntime's providers for NVIDIA's GPUs."""

    execution_providers: ClassVar[tuple[str, ...]]
    """onnxruntime's names, best first"""
    _largest = 64

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the installed onnxruntime was built with the provider."""
        return cls.execution_providers[0] in onnxruntime_providers()

    def _open(self) -> None:
        onnxruntime = import_onnxruntime()
        preload_libraries(onnxruntime)
        own = [spec for spec in self.outputs if self.file.onnx.computes(spec.name)]
        model = self.file.onnx.extract([spec.name for spec in self.inputs], [spec.name for spec in own])
        if len(own) < len(self.outputs):
            model = with_pixels(model, own[0])
        self._onnxruntime, self._numbers = onnxruntime, itertools.count(1)
        session = self._native["session"] = self._create_session(model)
        self.providers = session.get_providers()
        if self.execution_providers[0] not in self.providers:
            raise self._unavailable(_only(self.providers))
        self._check_tensors(described(session.get_inputs()), described(session.get_outputs()))

    def _create_session(self, model: bytes) -> Any:
        providers, options = self._providers(), self._session_options(NO_CPU)
        try:
            return self._onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors have no common base
            beside_cpu = [(name, _uncaptured(given)) for name, given in providers]
            advice = "Export the bundle again, or use another precision or device"
            reason = why_not_here(self._onnxruntime, model, self._session_options, beside_cpu, _only, advice)
            raise self._unavailable(reason or str(error)) from error

    def _session_options(self, switch: str) -> Any:
        options = session_options(self._onnxruntime, self.file, self.settings)
        options.add_session_config_entry("optimization.disable_specified_optimizers", _DISABLED)
        # weights stay out of the arena, which grows by doubling
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.add_session_config_entry(switch, "1")
        return options

    def _unavailable(self, why: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.settings.device} cannot load {self.file.spec.file}: {why}")

    @abstractmethod
    def _providers(self) -> list[Provider]:
        """Return the providers to ask for, best first, with their options."""

    def _shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Pad rows to the next power of two and prompts to the longest: few shapes, a CUDA graph each."""
        rows = min(1 << (shape[0] - 1).bit_length(), self._largest)
        return self._shape_of(spec, rows, self.file.longest)

    def _prepare(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        native, gpu, shapes = self._native, self.settings.gpu, key[0]
        binding = native["session"].io_binding()
        for spec, shape in zip(self.inputs, shapes, strict=True):
            address = self._buffers[spec.name].device.address
            binding.bind_input(spec.name, _MEMORY, gpu, spec.dtype, shape, address)
        for spec in outputs:
            address, shape = self._buffers[spec.name].device.address, self._shape_of(spec, shapes[0][0])
            binding.bind_output(spec.name, _MEMORY, gpu, spec.dtype, shape, address)
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the copies do that
        options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        native[key] = binding, options
        return lambda: native["session"].run_with_iobinding(*native[key])


class CudaRunner(OnnxruntimeGpuRunner):
    """Runs a graph with onnxruntime's CUDA provider."""

    needs = "onnxruntime's CUDAExecutionProvider"
    execution_providers = ("CUDAExecutionProvider",)

    def _providers(self) -> list[Provider]:
        return [(self.execution_providers[0], cuda_options(self.settings, str(int(self._stream.handle))))]


class OnnxruntimeTensorrtRunner(OnnxruntimeGpuRunner):
    """Runs a graph with onnxruntime's TensorRT provider, which builds an engine, and CUDA's beside it."""

    needs = "onnxruntime's TensorrtExecutionProvider"
    execution_providers = ("TensorrtExecutionProvider", "CUDAExecutionProvider")

    def _providers(self) -> list[Provider]:
        stream = str(int(self._stream.handle))
        tensorrt = _tensorrt_options(self.settings, stream, self.file.precision, self._cache())
        # CUDA's provider would ask for all nodes, to capture them, and TensorRT's has most of them
        cuda = _uncaptured(cuda_options(self.settings, stream))
        return list(zip(self.execution_providers, (tensorrt, cuda), strict=True))

    def _cache(self) -> Path | None:
        """Return the folder for this graph's engines: of this very file and this onnxruntime."""
        if self.settings.cache is None:
            return None
        tensors = "+".join(tensor.name for tensor in (*self.inputs, *self.outputs))
        return self.settings.cache / f"{self.file.sha256[:32]}-{tensors}-{self._onnxruntime.__version__}"


def _uncaptured(options: Mapping[str, str]) -> dict[str, str]:
    """Return `options` without CUDA graphs, for the sake of which the provider refuses nodes on the CPU."""
    return {name: "0" if name == "enable_cuda_graph" else value for name, value in options.items()}


def _only(started: Sequence[str]) -> str:
    return (
        f"onnxruntime started only {', '.join(started)}; what it printed above says why. "
        "Most often a library of CUDA, cuDNN or TensorRT is missing or too old: "
        f"{pip_install('onnxruntime-gpu[cuda,cudnn]')} brings the first two"
    )


def cuda_options(settings: Settings, stream: str) -> dict[str, str]:
    """Return options for onnxruntime's CUDA provider; `python -m studies.gpu_options` measures others."""
    return {
        "device_id": str(settings.gpu),
        "user_compute_stream": stream,
        "enable_cuda_graph": "1",
        "use_tf32": "0",  # fp32 is to be fp32
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # picks each convolution's fastest kernel, once a shape
    }


def _tensorrt_options(settings: Settings, stream: str, precision: str, cache: Path | None) -> dict[str, str]:
    options = {
        "device_id": str(settings.gpu),
        "user_compute_stream": stream,
        "trt_fp16_enable": str(int(precision == "fp16")),
    }
    try:
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:  # a full disk, someone else's folder: engines are built every time
        _log.warning("TensorRT's engines are not cached: %s", error)
        cache = None
    if cache is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }
    return options


@functools.cache
def preload_libraries(onnxruntime: ModuleType) -> None:
    """Load CUDA and cuDNN from NVIDIA's Python packages, where onnxruntime does not look by itself; once."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):  # it prints what it does not find
        onnxruntime.preload_dlls()
    if output.getvalue():
        _log.info("onnxruntime: %s", output.getvalue().strip())
