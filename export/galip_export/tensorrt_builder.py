"""TensorRT: an ONNX graph to a plan, by the package that is installed: tensorrt 10 or 11, or tensorrt_rtx.

Networks are strongly typed: every layer computes in the type that the graph states, and no flag of the
builder changes that. The result is inspected: an fp16 graph whose engine is in fp32 is an error.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from galip_runtime.backends.engines import REFIT, VERSION_COMPATIBLE, Profile, import_tensorrt
from galip_runtime.backends.pixels import with_pixels
from galip_runtime.bundle.manifest import GraphSpec
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.hardware import gpus

from galip.progress import Progress, no_progress
from galip_export.inspection import check_fp16, count_types, inspect_engine
from galip_export.signals import signals_wait
from galip_export.timing_cache import TimingCache

__all__ = ["BuildOptions", "Builder", "Built", "build_options", "profiles"]

_LARGEST = 1024
"""pictures at once, at most, that an engine is built for"""
_WORKSPACE = 4 * 2**30
_PROMPT = 16
"""tokens of the captions that the text encoder is fastest for"""


@dataclass(frozen=True)
class BuildOptions:
    """The options of an engine."""

    batches: tuple[int, ...] = (1, 4, 16)
    """batch sizes that it is fastest for, a profile for each"""
    archs: tuple[str, ...] = ()
    """compute capabilities, such as 8.6, with an engine for each; none: that of this machine's first GPU"""
    refit: bool = False
    """its weights can be replaced later"""
    version_compatible: bool = False
    """later versions of the package with the same first number run it, a little slower"""

    def __post_init__(self) -> None:
        valid = self.batches and all(1 <= batch <= _LARGEST for batch in self.batches)
        if not valid or len(set(self.batches)) < len(self.batches):
            raise UsageError(
                f"batch sizes {self.batches} are not valid; they are different numbers from 1 to {_LARGEST}"
            )
        for arch in self.archs:
            if not re.fullmatch(r"\d{1,2}\.\d", arch):
                raise UsageError(f"architecture {arch!r} is not known; name it like 8.6 or sm86")


def build_options(
    batches: str, archs: str | None = None, refit: bool = False, version_compatible: bool = False
) -> BuildOptions:
    """Parse batch sizes such as "1,4,16" and architectures such as "sm86,sm120" or "8.6,12.0".

    Raises UsageError for anything else.
    """
    try:
        numbers = tuple(int(number) for number in batches.split(","))
    except ValueError as error:
        raise UsageError(f"batch sizes are {batches!r}; they are whole numbers such as 1,4,16") from error
    names = [name.strip().lower() for name in archs.split(",")] if archs is not None else []
    dotted = tuple(re.sub(r"^sm(\d{1,2})(\d)$", r"\1.\2", name) for name in names)
    return BuildOptions(numbers, tuple(dict.fromkeys(dotted)), refit, version_compatible)


@dataclass(frozen=True)
class Built:
    """A plan and its contents."""

    plan: bytes
    package: str
    package_version: str
    compute_capability: str
    flags: tuple[str, ...]
    inspected: str
    layers: Mapping[str, int]
    weights: Mapping[str, int]


def profiles(options: BuildOptions) -> tuple[Profile, ...]:
    """Return the engines' profiles: each batch size is the largest of its own, which is fastest for it."""
    return tuple(Profile(1, batch, batch) for batch in sorted(options.batches))


class Builder:
    """Builds engines with one of TensorRT's packages."""

    def __init__(self, options: BuildOptions, out: Path) -> None:
        """Build for the bundle that will be at `out`. Raises ProviderUnavailable without a package."""
        self.options = options
        self.package, self._trt = _package(options)
        self._timing = TimingCache(out)

    @property
    def _ahead(self) -> bool:
        """Whether it builds ahead of time for GPUs that need not be here, and so times no kernels."""
        return self.package == "tensorrt_rtx"

    @property
    def version(self) -> str:
        """The package's."""
        return str(self._trt.__version__)

    def archs(self) -> tuple[str, ...]:
        """Compute capabilities to build for. Raises ProviderUnavailable where the package cannot."""
        here = _this_gpu()
        if self.options.version_compatible and self.package == "tensorrt_rtx":
            raise ProviderUnavailable("TensorRT for RTX builds no version-compatible engines; tensorrt does")
        if here is None and (self.options.refit or not self.options.archs):
            raise ProviderUnavailable(
                "there is no NVIDIA GPU here to build engines on. TensorRT for RTX can build engines without "
                "refit for a GPU that you name: --trt-arch sm86"
            )
        archs = self.options.archs or (str(here),)
        if self._ahead:
            known = [name for name in dir(self._trt.ComputeCapability) if name.startswith("SM")]
            unknown = [arch for arch in archs if _sm(arch) not in known and arch != here]
            supported = ", ".join(known).lower()
        else:
            supported = f"the GPU of this machine, {here}" if here else "the GPU of a machine that has one"
            unknown = [arch for arch in archs if arch != here]
        if unknown:
            raise ProviderUnavailable(
                f"{self.package} {self.version} builds no engines for {', '.join(unknown)}; it does for "
                f"{supported}"
            )
        return archs

    def build(
        self,
        bundle: Path,
        spec: GraphSpec,
        precision: str,
        arch: str,
        longest: int,
        progress: Progress = no_progress,
    ) -> Built:
        """Build the engine of the graph `spec` in the folder `bundle` for the compute capability `arch`.

        Inputs are (N, …), or (N, L) with L up to `longest`. The generator's engine has the outputs of
        `galip_runtime.backends.pixels`, too. Raises QualityGateFailed where TensorRT refuses the graph, or an
        fp16 one comes out in fp32; FileRefused where the file is not a graph.
        """
        trt = self._trt
        logger = _logger(trt)
        builder = trt.Builder(logger)
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        # a TensorRT without the flag has no other networks
        network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(_model(bundle, spec), str(bundle / spec.file)):
            errors = "; ".join(parser.get_error(number).desc() for number in range(parser.num_errors))
            raise QualityGateFailed(f"{self.package} {self.version} does not read {spec.file}: {errors}")
        config, flags = self._config(builder, network, arch, longest)
        layers, weights = count_types(trt, network)
        with signals_wait() as waiting:  # TensorRT drops what is raised while it builds
            config.progress_monitor = _monitor(trt, progress, waiting)
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise QualityGateFailed(
                f"{self.package} {self.version} builds no engine of {spec.file} for batches of "
                f"{', '.join(map(str, self.options.batches))}: {logger.errors()}. If memory is short, "
                "smaller batches (--trt-batch) need less"
            )
        if not self._ahead:
            self._timing.save_from(config)
        data = bytes(plan)
        inspected = "network"
        if _this_gpu() and (engine_layers := inspect_engine(trt, data)) is not None:
            inspected, layers = "engine", engine_layers
        built = Built(data, self.package, self.version, arch, flags, inspected, layers, weights)
        if precision == "fp16":
            check_fp16(spec.file, layers, weights, logger.weights)
        return built

    def _config(self, builder: Any, network: Any, arch: str, longest: int) -> tuple[Any, tuple[str, ...]]:
        trt, options, flags = self._trt, self.options, []
        config = builder.create_builder_config()
        config.profiling_verbosity = (
            trt.ProfilingVerbosity.DETAILED
        )  # the types of layers, for `inspect_engine`
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is to be fp32
        if options.refit:
            config.set_flag(trt.BuilderFlag.REFIT)
            flags.append(REFIT)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            flags.append(VERSION_COMPATIBLE)
        if self._ahead:
            config.num_compute_capabilities = 1
            capability = getattr(trt.ComputeCapability, _sm(arch), trt.ComputeCapability.CURRENT)
            config.set_compute_capability(capability, 0)
        else:
            self._timing.load_into(config)
        for limits in profiles(options):
            profile = builder.create_optimization_profile()
            for number in range(network.num_inputs):
                tensor = network.get_input(number)
                _, size = tensor.shape
                sizes = (1, min(_PROMPT, longest), longest) if size < 0 else (size, size, size)
                batches = (limits.min, limits.opt, limits.max)
                profile.set_shape(tensor.name, *zip(batches, sizes, strict=True))
            config.add_optimization_profile(profile)
        return config, tuple(flags)


def _model(bundle: Path, spec: GraphSpec) -> bytes:
    """Return the graph; a generator's with pictures as uint8 as a further output, which the runtime needs."""
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (spec.inputs, spec.outputs))
    model = OnnxFile(bundle / spec.file).extract(inputs, outputs)
    return with_pixels(model, spec.outputs[0]) if outputs == ["image"] else model


def _package(options: BuildOptions) -> tuple[str, ModuleType]:
    """Return TensorRT for RTX for GPUs that are not here, where it is installed; else the first package."""
    if any(arch != _this_gpu() for arch in options.archs):
        with contextlib.suppress(ProviderUnavailable):
            return import_tensorrt("tensorrt_rtx")
    return import_tensorrt()


def _this_gpu() -> str | None:
    """Return the compute capability of this machine's first GPU."""
    try:
        return gpus()[0].compute_capability
    except (OSError, IndexError):
        return None


def _sm(arch: str) -> str:
    return "SM" + arch.replace(".", "")


def _logger(trt: ModuleType) -> Any:
    """Return TensorRT's logger: it collects errors for ours, and says how large an engine's weights are."""

    class Log(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.weights: int | None = None
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append(message)
            elif match := re.match(r"Total Weights Memory: (\d+) bytes", message):
                self.weights = int(match[1])

        def errors(self) -> str:
            return "; ".join(self._errors) or "TensorRT does not say why"

    return Log()


def _monitor(trt: ModuleType, progress: Progress, waiting: Sequence[int]) -> Any:
    """Report the outermost phase to `progress`, and end the build where a signal is `waiting`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._phases[name] = steps
                progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self._phases:
                progress(name, step + 1, self._phases[name])
            return not waiting

        def phase_finish(self, name: str) -> None:
            self._phases.pop(name, None)

    return Monitor()
