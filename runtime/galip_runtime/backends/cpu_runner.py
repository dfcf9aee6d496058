"""Graphs on a CPU: by onnxruntime, and a generator's blocks by galip-kernels where that is installed."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import not_finite
from galip_runtime.backends.kernel_loading import LoadedBlocks, load_blocks
from galip_runtime.backends.kernels import KernelsUnusable
from galip_runtime.backends.onnxruntime_runner import OnnxruntimeRunner
from galip_runtime.backends.runner import kernels_unused
from galip_runtime.bundle.generation_blocks import IMAGE
from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.errors import FileRefused, GalipError

__all__ = ["CpuRunner"]

_log = logging.getLogger("galip_runtime")


class CpuRunner(OnnxruntimeRunner):
    """Runs a graph with onnxruntime's own kernels for CPUs.

    With galip-kernels, onnxruntime computes a generator up to its blocks, and galip-kernels the blocks.
    """

    needs = "onnxruntime's CPUExecutionProvider"
    execution_providers = ("CPUExecutionProvider",)

    def _start(self) -> None:
        self._loaded = self._load_blocks()
        self.rounds_on_device = self._loaded is not None
        super()._start()

    def _load_blocks(self) -> LoadedBlocks | None:
        if [spec.name for spec in self.outputs] != [IMAGE]:
            return None
        try:
            loaded = load_blocks(self.file, self.settings)
        except KernelsUnusable as error:
            self.kernels = kernels_unused(str(error))
            level = logging.INFO if error.expected else logging.WARNING
            _log.log(level, "galip-kernels does not compute %s: %s", self.file.path, error)
            return None
        self.kernels = loaded.description()
        return loaded

    def _computed(self) -> Sequence[TensorSpec]:
        return super()._computed() if self._loaded is None else self._loaded.inputs

    def _cut(self, threads: int | None = None) -> bytes:
        return super()._cut(self.settings.threads)

    def _load_error(self, error: Exception, model: bytes) -> GalipError:
        return FileRefused(f"onnxruntime cannot load {self.file.spec.file}: {error}. Export it again")

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        if self._loaded is None:
            return super()._compute(inputs)
        return self._loaded.blocks.image(*self._before_blocks(inputs, self._loaded))

    def _pixels(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        if self._loaded is None:
            return super()._pixels(inputs)
        pixels = self._loaded.blocks.pixels(*self._before_blocks(inputs, self._loaded))
        if pixels is None:
            raise not_finite("generator")
        return pixels

    def _before_blocks(
        self, inputs: dict[str, npt.NDArray[Any]], loaded: LoadedBlocks
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """Return the features before the first block, and the affines of all."""
        results = self._session.run([spec.name for spec in loaded.inputs], inputs)
        checked = map(self._as_specified, results, loaded.inputs, [inputs] * len(results))
        features, *affines = checked
        return features, affines
