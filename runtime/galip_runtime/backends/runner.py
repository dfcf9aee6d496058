"""`Runner`, the base of everything that runs a graph on a device, and what it is built from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import check_finite, to_uint8
from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.engines import EngineRecord
from galip_runtime.bundle.manifest import GraphSpec, TensorSpec, file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed
from galip_runtime.forks import Lock, call_after_fork
from galip_runtime.sentence_cache import CAPTIONS_AT_ONCE

__all__ = ["Engine", "GraphFile", "Runner", "Settings", "kernels_unused"]

_Result = TypeVar("_Result")


def kernels_unused(why: str) -> dict[str, Any]:
    """Return the `kernels` of a runner that does without them."""
    return {"target": None, "why": why, "version": None, "algorithms": []}


@dataclass(frozen=True)
class Settings:
    """How to run a graph."""

    device: str
    """a device's name in `DEVICE_TABLE`"""
    threads: int
    """CPU threads of one run"""
    gpu: int = 0
    """number of the GPU, on devices that are numbered"""
    cache: Path | None = None
    """folder for what the device compiles; None: it compiles every time"""
    stream: Stream | None = None
    """the CUDA stream that all graphs of a model share; None on devices without one"""
    fallback: bool = False
    """whether the CPU may run nodes that the device cannot"""


@dataclass(frozen=True)
class Engine:
    """A TensorRT plan and the record beside it."""

    plan: Path
    record: EngineRecord


@dataclass(frozen=True)
class GraphFile:
    """A graph's file in a bundle, verified."""

    path: Path
    sha256: str
    spec: GraphSpec
    precision: str
    onnx: OnnxFile
    signature: tuple[int, ...]
    """of the file, taken before it was verified"""
    engine: Engine | None = None
    """for this graph and GPU, verified; None without TensorRT"""
    longest: int = 0
    """the largest size of an input's dynamic axes after the first: tokens of a prompt"""

    def check_unchanged(self) -> None:
        """Raise FileRefused where the file was written or replaced after it was verified."""
        if file_signature(self.path) != self.signature:
            raise FileRefused(f"{self.path} was written while it was loaded: load it again")


class Runner(ABC):
    """Computes `outputs` from `inputs`, both tensors of a graph's file. Threads may share it."""

    needs: ClassVar[str]
    """the library that has to be installed, for error messages"""
    captions_at_once: ClassVar[int] = CAPTIONS_AT_ONCE
    """how many captions the text encoder takes in one run, at most"""
    rounds_on_device: bool = False
    """whether `run_pixels` returns pictures as the device has rounded them"""

    providers: list[str]
    """what runs the graph, best first"""
    nodes_on_cpu: Sequence[str] = ()
    """nodes that the CPU runs instead of the device, as "name (operator)"; only with `Settings.fallback`"""
    kernels: Mapping[str, Any] = kernels_unused("galip-kernels computes on device cpu only")
    """what galip-kernels computes, as `Model.info` shows it"""

    @classmethod
    @abstractmethod
    def is_installed(cls) -> bool:
        """Return whether the library is installed; it may still fail to start."""

    @classmethod
    def can_run(cls, file: GraphFile) -> bool:
        """Return whether this runner is the one for `file`, where a device has several."""
        return cls.is_installed()

    @classmethod
    def computes_in(cls, precision: str) -> bool:
        """Return whether this machine computes in `precision`, one that the device has."""
        return True

    def __init__(
        self,
        file: GraphFile,
        settings: Settings,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        """Load the graph.

        Raises ProviderUnavailable where the device does not start, and FileRefused where the file holds no
        graph that can be run, or another one than `inputs` and `outputs` describe.
        """
        self.file, self.settings = file, settings
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._opening, self._opened = Lock(), False
        self._start()
        self._opened = True
        call_after_fork(self)

    def forked(self) -> None:
        """Give up what the threads of the parent serve, after a fork. The next run opens the file again."""
        if self._opened:
            self._opened = False
            self._give_up()

    @abstractmethod
    def _start(self) -> None:
        """Get ready to run, and set `providers`. Raises as the constructor."""

    @abstractmethod
    def _give_up(self) -> None:
        """Drop what `_start` opened, without running its destructors (`never_free`)."""

    def _open_again(self) -> None:
        """Open the file again. Raises as the constructor, and FileRefused where the file has changed."""
        with self._opening:
            if not self._opened:
                self.file.check_unchanged()
                self._start()
                self._opened = True

    @abstractmethod
    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Return the one output."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Return the graph's one output for `inputs`, which the caller has checked.

        Raises ProviderUnavailable where the device fails, and FileRefused where the output has another shape
        or dtype than the manifest says.
        """
        return self._guarded(self._output, inputs)

    def run_pixels(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        """Return pictures, uint8 (N, H, W, 3), of a graph whose output is `image`, for checked `inputs`.

        Raises as `run`, and QualityGateFailed where a picture is not finite.
        """
        return self._guarded(self._pixels, inputs)

    def _pixels(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        return to_uint8(check_finite(self._output(inputs), "generator"))

    def _output(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        return self._as_specified(self._compute(inputs), self.outputs[0], inputs)

    def _as_specified(
        self, output: npt.NDArray[Any], spec: TensorSpec, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """Return `output` if it has the dtype and sizes of `spec` and as many rows as the inputs.

        No library checks the rows, or sizes that only a run of the graph determines. Raises FileRefused.
        """
        shape = (len(inputs[self.inputs[0].name]), *spec.shape[1:])
        if output.shape != shape or output.dtype != spec.dtype:
            raise FileRefused(
                f"{self.file.spec.file} is another graph than the manifest says: its output {spec.name} is "
                f"{output.dtype} {output.shape}, not {spec.dtype} {shape}. Export the bundle again"
            )
        return output

    def _guarded(
        self,
        compute: Callable[[dict[str, npt.NDArray[Any]]], _Result],
        inputs: Mapping[str, npt.NDArray[Any]],
    ) -> _Result:
        if not self._opened:
            self._open_again()
        try:
            return compute(dict(inputs))
        except (FileRefused, QualityGateFailed):
            raise
        except Exception as error:  # neither onnxruntime's errors nor OpenVINO's have a common base
            raise ProviderUnavailable(
                f"{self.settings.device} failed to run {self.file.spec.file}: {error}. If memory is short, a "
                "smaller batch_size needs less; otherwise export the bundle again"
            ) from error

    def _check_tensors(
        self,
        inputs: list[tuple[Any, ...]],
        outputs: list[tuple[Any, ...]],
        computed: Sequence[TensorSpec] | None = None,
    ) -> None:
        """Compare the graph's own inputs and outputs, (name, dtype, sizes), with the expected ones.

        A dynamic size is None and may have any name. `computed`: the expected outputs, where they are not
        `self.outputs`. Raises FileRefused.
        """
        expected_outputs = self.outputs if computed is None else computed
        for kind, own, specs in (("inputs", inputs, self.inputs), ("outputs", outputs, expected_outputs)):
            expected = [(spec.name, spec.dtype, self._sizes(spec.shape)) for spec in specs]
            if sorted(own, key=str) != sorted(expected, key=str):
                raise FileRefused(
                    f"{self.file.spec.file} is another graph than the manifest says: its {kind} are "
                    f"{own}, not {expected}. Export the bundle again"
                )

    def _sizes(self, shape: Sequence[int | str]) -> tuple[int | None, ...]:
        """Return the sizes that the loaded graph has for `shape`; None for a dynamic one."""
        return tuple(size if isinstance(size, int) else None for size in shape)
