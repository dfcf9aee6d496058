"""OpenVINO's other targets: Intel's GPUs and NPUs."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from galip_runtime.backends.openvino_runner import OpenvinoRunner, openvino_core
from galip_runtime.errors import ProviderUnavailable

__all__ = ["OpenvinoGpuRunner", "OpenvinoNpuRunner", "OpenvinoTargetRunner"]


class OpenvinoTargetRunner(OpenvinoRunner):
    """Runs a graph with OpenVINO on a device other than the CPU, which has to be there."""

    _driver: ClassVar[str]
    """what to install where OpenVINO does not find the device"""

    @classmethod
    def computes_in(cls, precision: str) -> bool:
        """Return True: the CPU's features do not matter."""
        return True

    def _start(self) -> None:
        devices = openvino_core().available_devices
        if not any(name.split(".")[0] == self._target for name in devices):
            raise ProviderUnavailable(
                f"OpenVINO finds no {self._target} on this machine (it finds: {', '.join(devices)}). Device "
                f"{self.settings.device!r} needs {self._driver}; device 'openvino' runs on the CPU"
            )
        super()._start()

    def _properties(self) -> dict[str, Any]:
        half = self.file.precision == "fp16"
        return {"INFERENCE_PRECISION_HINT": "f16" if half else "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenvinoGpuRunner(OpenvinoTargetRunner):
    """Runs a graph with OpenVINO on an Intel GPU, the first one where there are several."""

    _target = "GPU"
    _driver = "an Intel GPU and its OpenCL driver (on Debian and Ubuntu: intel-opencl-icd)"


class OpenvinoNpuRunner(OpenvinoTargetRunner):
    """Runs a graph with OpenVINO on an Intel NPU: picture by picture, since NPUs compile for fixed shapes."""

    _target = "NPU"
    _driver = "an Intel Core Ultra or later and its NPU driver (on Linux: Intel's linux-npu-driver)"

    def _start(self) -> None:
        if self.file.precision != "fp16":
            raise ProviderUnavailable(
                f"{self.file.spec.file} is in {self.file.precision}, and an NPU computes in fp16 only: "
                "export the bundle again with --precision fp16"
            )
        super()._start()

    def _cut(self, model: Any) -> Any:
        cut = super()._cut(model)
        cut.reshape({tensor.name: self._sizes(tensor.shape) for tensor in self.inputs})
        return cut

    def _sizes(self, shape: Sequence[int | str]) -> tuple[int, ...]:
        """Return `shape` with one row, and prompts as long as the longest."""
        return (1, *(size if isinstance(size, int) else self.file.longest for size in shape[1:]))

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        padded = {
            tensor.name: _padded(inputs[tensor.name], self._sizes(tensor.shape)) for tensor in self.inputs
        }
        count = len(padded[self.inputs[0].name])
        rows = [{name: array[row : row + 1] for name, array in padded.items()} for row in range(count)]
        return np.concatenate([super(OpenvinoNpuRunner, self)._compute(row) for row in rows])


def _padded(rows: npt.NDArray[Any], sizes: Sequence[int]) -> npt.NDArray[Any]:
    """Return `rows` with zeros up to `sizes` in all axes except the first: they change no prompt."""
    missing = [(0, size - own) for size, own in zip(sizes[1:], rows.shape[1:], strict=True)]
    return np.pad(rows, [(0, 0), *missing])
