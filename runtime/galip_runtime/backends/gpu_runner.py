"""Graphs on a GPU: copies and work are queued on the model's one stream, in shapes that are prepared once."""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import check_finite
from galip_runtime.backends.cuda import PREPARING, Buffer, Stream
from galip_runtime.backends.runner import Runner
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.forks import never_free

__all__ = ["GpuRunner", "Key"]

Key = tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]
"""shapes of the inputs, in their order, and names of the outputs"""


class GpuRunner(Runner):
    """Runs a graph on an NVIDIA GPU, on `Settings.stream` and its thread."""

    rounds_on_device = True
    _largest: int
    """the most rows of one run; more are run in parts"""
    _kept: int | None = None
    """how many shapes stay prepared, those used last; None: all"""
    _native: dict[object, Any]
    """the backend's objects, held here alone: the stream's thread gives them up, before the buffers"""

    def _start(self) -> None:
        assert self.settings.stream is not None
        self._stream: Stream = self.settings.stream
        self._prepared: OrderedDict[Key, Callable[[], None]] = OrderedDict()
        self._native: dict[object, Any] = {}
        self._stream.after(self, self._native.clear)
        self._stream.do(self._load)

    def _give_up(self) -> None:
        never_free(self._native)

    def _open_again(self) -> None:
        self._stream.do(lambda: None)  # which says why not: CUDA does not survive a fork

    def _load(self) -> None:
        with PREPARING:
            self._open()
            self._buffers = {
                each.name: Buffer(self._stream, self._size(each)) for each in (*self.inputs, *self.outputs)
            }

    @abstractmethod
    def _open(self) -> None:
        """Load it, and set `providers` and `_largest`. Raises as the constructor."""

    @abstractmethod
    def _prepare(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        """What queues the work for inputs of the shapes in `key`, from buffers to buffers on the GPU.

        What the backend makes for it is kept in `_native[key]`.
        """

    def _replayed(self, queue: Callable[[], None]) -> Callable[[], None]:
        """`queue`, which has queued copies and work once, or what does the same quicker."""
        return queue

    def _shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which the input `spec` is run, not smaller than `shape`: what is more is zeros."""
        return shape

    def _size(self, spec: TensorSpec) -> int:
        """Bytes of the largest that there is of an input or output."""
        return _bytes(self._shape_of(spec, self._largest, self.file.longest), spec)

    def _shape_of(self, spec: TensorSpec, rows: int, longest: int = 0) -> tuple[int, ...]:
        return (rows, *(size if isinstance(size, int) else longest for size in spec.shape[1:]))

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        (result,) = self._results(inputs, self.outputs[:1])
        return result

    def _pixels(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        _image, *both = self.outputs  # as `pixel_outputs` has them
        pixels, check = self._results(inputs, both)
        check_finite(check, "generator")
        return self._as_specified(pixels, both[0], inputs)

    def _results(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[TensorSpec]
    ) -> list[npt.NDArray[Any]]:
        count = len(inputs[self.inputs[0].name])
        starts = range(0, count, self._largest)
        of_parts = [
            {name: rows[start : start + self._largest] for name, rows in inputs.items()} for start in starts
        ]
        parts = self._stream.do(lambda: [self._part(each, outputs) for each in of_parts])
        return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _first(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        """Queue copies and work for inputs of the shapes in `key`; what does so again."""
        shapes, work = key[0], self._prepare(key, outputs)
        taken = [
            (self._buffers[each.name], _bytes(shape, each))
            for each, shape in zip(self.inputs, shapes, strict=True)
        ]
        given = [
            (self._buffers[each.name], _bytes(self._shape_of(each, shapes[0][0]), each)) for each in outputs
        ]

        def queue() -> None:
            for buffer, size in taken:
                buffer.to_device(size)
            work()
            for buffer, size in given:
                buffer.to_host(size)

        queue()
        self._stream.wait()
        return self._replayed(queue)

    def _part(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[TensorSpec]
    ) -> list[npt.NDArray[Any]]:
        """At most `_largest` rows."""
        shapes = tuple(self._shape(each, inputs[each.name].shape) for each in self.inputs)
        for each, shape in zip(self.inputs, shapes, strict=True):
            rows, buffer = inputs[each.name], self._buffers[each.name].array(each.dtype, shape)
            if rows.shape != shape:
                buffer.fill(0)
            buffer[tuple(map(slice, rows.shape))] = rows
        key = (shapes, tuple(each.name for each in outputs))
        if key in self._prepared:
            self._prepared.move_to_end(key)
            self._prepared[key]()
            self._stream.wait()
        else:
            with PREPARING:
                self._prepared[key] = self._first(key, outputs)
                while self._kept is not None and len(self._prepared) > self._kept:
                    oldest, _ = self._prepared.popitem(last=False)
                    del self._native[oldest]
        count = len(inputs[self.inputs[0].name])
        return [
            self._buffers[each.name].array(each.dtype, self._shape_of(each, count)).copy() for each in outputs
        ]


def _bytes(shape: tuple[int, ...], spec: TensorSpec) -> int:
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
