"""Graphs that onnxruntime runs on a GPU: all nodes, inputs and outputs are there, each shape is a CUDA graph.

onnxruntime captures a CUDA graph for each `gpu_graph_id`. Batches are run in a few sizes, a graph each, so
that neither graphs nor their memory pile up.
"""

import contextlib
import functools
import io
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from galip_runtime.backends.devices import PROVIDERS, Settings, import_onnxruntime
from galip_runtime.backends.gpu_runner import GpuRunner, Key
from galip_runtime.backends.onnxruntime_runner import described, session_options
from galip_runtime.backends.pixels import with_pixels
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import ProviderUnavailable

__all__ = ["OnnxruntimeGpuRunner", "cuda_options", "preload_libraries"]

_log = logging.getLogger("galip_runtime")

_MEMORY = "cuda"
"""onnxruntime's name for where bound tensors lie"""
_NO_CPU = "session.disable_cpu_ep_fallback"
_RECORD = "session.record_ep_graph_assignment_info"
_DISABLED = "GatherSliceToSplitFusion"
"""an optimisation: its nodes copy from the host's memory, which a CUDA graph finds used for something else"""
_NAMED = 5
"""nodes on the CPU that an error names"""


class OnnxruntimeGpuRunner(GpuRunner):
    """A graph that onnxruntime runs on a GPU."""

    _largest = 64

    def _open(self) -> None:
        onnxruntime = import_onnxruntime()
        preload_libraries(onnxruntime)
        given = [each for each in self.outputs if self.file.onnx.computes(each.name)]
        model = self.file.onnx.cut([each.name for each in self.inputs], [each.name for each in given])
        if len(given) < len(self.outputs):
            model = with_pixels(model, given[0])
        self._onnxruntime, self._numbers = onnxruntime, itertools.count(1)
        session = self._native["session"] = self._started(model)
        self.providers = session.get_providers()
        if PROVIDERS[self.settings.device][0] not in self.providers:
            raise self._unavailable(_only(self.providers))
        self._check_tensors(described(session.get_inputs()), described(session.get_outputs()))

    def _started(self, model: bytes) -> Any:
        providers = [(each, self._options(each)) for each in PROVIDERS[self.settings.device]]
        options = self._session_options(_NO_CPU)
        try:
            return self._onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors have no common base of their own
            raise self._unavailable(self._why_not(model, providers) or str(error)) from error

    def _session_options(self, wanted: str) -> Any:
        options = session_options(self._onnxruntime, self.file, self.settings)
        options.add_session_config_entry("optimization.disable_specified_optimizers", _DISABLED)
        # weights take what they need; the arena, which grows by doubling, has no more than what is computed
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.add_session_config_entry(wanted, "1")
        return options

    def _unavailable(self, why: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.settings.device} cannot load {self.file.spec.file}: {why}")

    def _options(self, provider: str) -> Mapping[str, str]:
        stream = str(int(self._stream.handle))
        if provider == "CUDAExecutionProvider":
            options = cuda_options(self.settings, stream)
            # beside another provider it has not all nodes, as it asks for to capture them
            return options if self.settings.device == "cuda" else _uncaptured(options)
        return _tensorrt_options(self.settings, stream, self.file.precision, self._cache())

    def _cache(self) -> Path | None:
        """Where TensorRT's provider keeps the engines of this graph: of this very file and onnxruntime."""
        if self.settings.cache is None:
            return None
        tensors = "+".join(each.name for each in (*self.inputs, *self.outputs))
        return self.settings.cache / f"{self.file.sha256[:32]}-{tensors}-{self._onnxruntime.__version__}"

    def _why_not(self, model: bytes, providers: Sequence[tuple[str, Mapping[str, str]]]) -> str | None:
        """What keeps the graph off the GPU, as a session that may use the CPU tells; or None."""
        wanted = PROVIDERS[self.settings.device][0]
        options = self._session_options(_RECORD)
        also = [(name, _uncaptured(given)) for name, given in (*providers, ("CPUExecutionProvider", {}))]
        try:
            session = self._onnxruntime.InferenceSession(model, options, providers=also, enable_fallback=0)
        except Exception as error:
            _log.info("%s does not load with the CPU beside, either: %s", self.file.spec.file, error)
            return None
        started = session.get_providers()
        if wanted not in started:
            return _only(started)
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return None
        parts = session.get_provider_graph_assignment_info()
        nodes = [node for part in parts if part.ep_name.startswith("CPU") for node in part.get_nodes()]
        if not nodes:
            return None
        named = ", ".join(f"{node.name or 'a node'} ({node.op_type})" for node in nodes[:_NAMED])
        more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
        return (
            f"onnxruntime would run {named}{more} on the CPU, because {wanted} has no kernel for such nodes "
            "or their types. Export the bundle again, or use another precision or device"
        )

    def _shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Rows up to the next power of two, prompts up to the longest: few shapes, a CUDA graph each."""
        rows = min(1 << (shape[0] - 1).bit_length(), self._largest)
        return self._sizes(spec, rows, self.file.longest)

    def _prepare(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        native, gpu, shapes = self._native, self.settings.gpu, key[0]
        binding = native["session"].io_binding()
        for each, shape in zip(self.inputs, shapes, strict=True):
            address = self._buffers[each.name].device.address
            binding.bind_input(each.name, _MEMORY, gpu, each.dtype, shape, address)
        for each in outputs:
            address, shape = self._buffers[each.name].device.address, self._sizes(each, shapes[0][0])
            binding.bind_output(each.name, _MEMORY, gpu, each.dtype, shape, address)
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # copies follow
        options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        native[key] = binding, options
        return lambda: native["session"].run_with_iobinding(*native[key])


def _uncaptured(options: Mapping[str, str]) -> dict[str, str]:
    """`options` of a provider that does not refuse nodes on the CPU for the sake of CUDA graphs."""
    return {name: "0" if name == "enable_cuda_graph" else value for name, value in options.items()}


def _only(started: Sequence[str]) -> str:
    return (
        f"onnxruntime started only {', '.join(started)}; what it printed above says why. "
        "Most often a library of CUDA, cuDNN or TensorRT is missing or too old: "
        "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the first two"
    )


def cuda_options(settings: Settings, stream: str) -> dict[str, str]:
    """Of onnxruntime's CUDA provider. `python -m studies.gpu_options` measures others."""
    return {
        "device_id": str(settings.gpu),
        "user_compute_stream": stream,
        "enable_cuda_graph": "1",
        "use_tf32": "0",  # fp32 is to be fp32
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # each convolution's fastest, measured once a shape
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
    except OSError as error:  # a full disk, somebody else's folder: engines are built each time
        _log.warning("TensorRT's engines are not kept: %s", error)
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
    told = io.StringIO()
    with contextlib.redirect_stdout(told):  # it prints what it does not find
        onnxruntime.preload_dlls()
    if told.getvalue():
        _log.info("onnxruntime: %s", told.getvalue().strip())
