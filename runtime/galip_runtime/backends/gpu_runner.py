"""The base of runners on NVIDIA GPUs: one stream a model, and each shape prepared only once."""

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
"""shapes of the inputs, in order, and names of the outputs"""


class GpuRunner(Runner):
    """Runs a graph on an NVIDIA GPU, on `Settings.stream` and its thread."""

    rounds_on_device = True
    _largest: int
    """the most rows of one run; more run in parts"""
    _most_shapes: int | None = None
    """how many shapes stay prepared, the most recent ones; None: all"""
    _native: dict[object, Any]
    """the library's objects, held nowhere else: the stream's thread frees them before the buffers"""

    def _start(self) -> None:
        assert self.settings.stream is not None
        self._stream: Stream = self.settings.stream
        self._prepared: OrderedDict[Key, Callable[[], None]] = OrderedDict()
        self._native: dict[object, Any] = {}
        self._stream.free_after(self, self._native.clear)
        self._stream.run(self._load)

    def _give_up(self) -> None:
        never_free(self._native)

    def _open_again(self) -> None:
        self._stream.run(lambda: None)  # raises: CUDA does not survive a fork

    def _load(self) -> None:
        with PREPARING:
            self._open()
            self._buffers = {
                spec.name: Buffer(self._stream, self._size(spec)) for spec in (*self.inputs, *self.outputs)
            }

    @abstractmethod
    def _open(self) -> None:
        """Load the graph, and set `providers` and `_largest`. Raises as the constructor."""

    @abstractmethod
    def _prepare(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        """Return a function that queues a run on inputs of the shapes in `key`, between buffers on the GPU.

        The library's objects for it go into `_native[key]`.
        """

    def _optimized(self, queue: Callable[[], None]) -> Callable[[], None]:
        """Return `queue`, which has queued copies and a run once, or a faster equivalent."""
        return queue

    def _shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape to run the input `spec` in: at least `shape`, and zeros beyond it."""
        return shape

    def _size(self, spec: TensorSpec) -> int:
        """Return the bytes that the input or output takes at its largest."""
        return _bytes(self._shape_of(spec, self._largest, self.file.longest), spec)

    def _shape_of(self, spec: TensorSpec, rows: int, longest: int = 0) -> tuple[int, ...]:
        return (rows, *(size if isinstance(size, int) else longest for size in spec.shape[1:]))

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        (result,) = self._results(inputs, self.outputs[:1])
        return result

    def _pixels(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        _image, *pixel_specs = self.outputs  # in the order of `pixel_outputs`
        pixels, check = self._results(inputs, pixel_specs)
        check_finite(check, "generator")
        return self._as_specified(pixels, pixel_specs[0], inputs)

    def _results(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[TensorSpec]
    ) -> list[npt.NDArray[Any]]:
        count = len(inputs[self.inputs[0].name])
        starts = range(0, count, self._largest)
        parts = [
            {name: rows[start : start + self._largest] for name, rows in inputs.items()} for start in starts
        ]
        results = self._stream.run(lambda: [self._run_part(part, outputs) for part in parts])
        return (
            results[0] if len(results) == 1 else [np.concatenate(rows) for rows in zip(*results, strict=True)]
        )

    def _run_first(self, key: Key, outputs: Sequence[TensorSpec]) -> Callable[[], None]:
        """Run once on inputs of the shapes in `key`; return a function that queues the same again."""
        shapes, run = key[0], self._prepare(key, outputs)
        sources = [
            (self._buffers[spec.name], _bytes(shape, spec))
            for spec, shape in zip(self.inputs, shapes, strict=True)
        ]
        targets = [
            (self._buffers[spec.name], _bytes(self._shape_of(spec, shapes[0][0]), spec)) for spec in outputs
        ]

        def queue() -> None:
            for buffer, size in sources:
                buffer.to_device(size)
            run()
            for buffer, size in targets:
                buffer.to_host(size)

        queue()
        self._stream.wait()
        return self._optimized(queue)

    def _run_part(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[TensorSpec]
    ) -> list[npt.NDArray[Any]]:
        """Run on at most `_largest` rows."""
        shapes = tuple(self._shape(spec, inputs[spec.name].shape) for spec in self.inputs)
        for spec, shape in zip(self.inputs, shapes, strict=True):
            rows, buffer = inputs[spec.name], self._buffers[spec.name].array(spec.dtype, shape)
            if rows.shape != shape:
                buffer.fill(0)
            buffer[tuple(map(slice, rows.shape))] = rows
        key = (shapes, tuple(spec.name for spec in outputs))
        if key in self._prepared:
            self._prepared.move_to_end(key)
            self._prepared[key]()
            self._stream.wait()
        else:
            with PREPARING:
                self._prepared[key] = self._run_first(key, outputs)
                while self._most_shapes is not None and len(self._prepared) > self._most_shapes:
                    oldest, _ = self._prepared.popitem(last=False)
                    del self._native[oldest]
        count = len(inputs[self.inputs[0].name])
        return [
            self._buffers[spec.name].array(spec.dtype, self._shape_of(spec, count)).copy() for spec in outputs
        ]


def _bytes(shape: tuple[int, ...], spec: TensorSpec) -> int:
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
