"""A graph on a device, whatever runs it, and the file that it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import check_finite, to_uint8
from galip_runtime.backends.devices import Settings
from galip_runtime.backends.engines import EngineRecord
from galip_runtime.bundle.manifest import GraphSpec, TensorSpec, file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed
from galip_runtime.forks import Lock, call_after_fork

__all__ = ["Engine", "GraphFile", "Runner"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Engine:
    """A plan and the record beside it."""

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
    """the file's, from before it was verified"""
    engine: Engine | None = None
    """TensorRT's, of this graph, for this GPU; verified"""
    longest: int = 0
    """the largest size of an input's dynamic axis but the first: tokens of a prompt"""

    def check_unchanged(self) -> None:
        """Raises FileRefused where the file was written or replaced since it was verified."""
        if file_signature(self.path) != self.signature:
            raise FileRefused(f"{self.path} was written while it was loaded: load it again")


class Runner(ABC):
    """What computes `outputs` from `inputs`, tensors of a file. May be run by several threads at once."""

    providers: list[str]
    """what runs it, best first"""

    def __init__(
        self,
        file: GraphFile,
        settings: Settings,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        """Raises ProviderUnavailable where the device does not start or the CPU lacks the precision.

        Raises FileRefused where the file holds no graph that can be run, or another one.
        """
        self.file, self.settings = file, settings
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._opening, self._opened = Lock(), False
        self._start()
        self._opened = True
        call_after_fork(self)

    def forked(self) -> None:
        """In a forked process: give up what the parent's threads serve. The next run opens the file again."""
        if self._opened:
            self._opened = False
            self._give_up()

    @abstractmethod
    def _start(self) -> None:
        """Make it ready to run, and set `providers`. Raises as the constructor."""

    @abstractmethod
    def _give_up(self) -> None:
        """Forget what `_start` opened, without running its destructors (`never_free`)."""

    def _open_again(self) -> None:
        """Raises as the constructor, and FileRefused where the file has changed."""
        with self._opening:
            if not self._opened:
                self.file.check_unchanged()
                self._start()
                self._opened = True

    @abstractmethod
    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The one output."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The graph's one output for `inputs`, which the caller has checked.

        Raises ProviderUnavailable where the device gives up on it, and FileRefused where the output has
        another shape or dtype than the manifest says.
        """
        return self._guarded(self._output, inputs)

    def draw(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        """Pictures, uint8 (N, H, W, 3), of a graph whose output is `image`, for `inputs`, checked.

        Raises as `run`, and QualityGateFailed where a picture is not finite.
        """
        return self._guarded(self._draw, inputs)

    def _draw(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        return to_uint8(check_finite(self._output(inputs), "generator"))

    def _output(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        return self._as_specified(self._compute(inputs), self.outputs[0], inputs)

    def _as_specified(
        self, output: npt.NDArray[Any], spec: TensorSpec, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """`output`, if it has the dtype and sizes of `spec` and as many rows as the inputs.

        A backend checks neither the rows nor what a dynamic size within the graph comes to.
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

    def _check_tensors(self, inputs: list[tuple[Any, ...]], outputs: list[tuple[Any, ...]]) -> None:
        """The graph's own inputs and outputs, (name, dtype, sizes), against those that are expected.

        A dynamic size is None and may have any name. Raises FileRefused.
        """
        for what, found, specs in (("inputs", inputs, self.inputs), ("outputs", outputs, self.outputs)):
            expected = [(spec.name, spec.dtype, _sizes(spec.shape)) for spec in specs]
            if sorted(found, key=str) != sorted(expected, key=str):
                raise FileRefused(
                    f"{self.file.spec.file} is another graph than the manifest says: its {what} are "
                    f"{found}, not {expected}. Export the bundle again"
                )


def _sizes(shape: Sequence[int | str]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
