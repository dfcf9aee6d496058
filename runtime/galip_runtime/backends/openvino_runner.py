"""Graphs that OpenVINO runs itself, without onnxruntime: a third of the memory, and faster loading.

What OpenVINO compiles from a graph goes into a cache folder, one file (OpenVINO says blob) for each graph,
precision, OpenVINO version and CPU. Loading the same graph again hashes its blob, since OpenVINO crashes on a
damaged one, and maps it into memory.
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.backends.libraries import has_openvino, import_openvino
from galip_runtime.backends.runner import Runner
from galip_runtime.cache import HEADER_SIZE, open_cached, write_cached
from galip_runtime.errors import FileRefused, ProviderUnavailable
from galip_runtime.forks import Lock, call_after_fork, native_work, never_free
from galip_runtime.hardware import BF16_FEATURES, INT8_FEATURES, has_cpu_features

__all__ = ["OpenvinoRunner", "openvino_computes_in", "openvino_core", "openvino_settings"]

_log = logging.getLogger("galip_runtime")

_FORMAT = 3
"""of blobs; increase it whenever `_cut` or `openvino_settings` makes another graph from the same file"""
_CACHE_BYTES = 4 * 2**30
_TYPES = {"f32": "float32", "i64": "int64"}


def openvino_settings(precision: str, threads: int) -> dict[str, Any]:
    """Return OpenVINO's properties for one run at a time in `precision` on `threads` threads.

    By default OpenVINO takes the precision that it thinks best for the CPU. What int8 leaves in float runs in
    bf16 where the CPU has it. Threads are not pinned: a core would be shared with other models' threads.
    """
    half = precision in ("bf16", "int8") and openvino_computes_in("bf16")
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


@functools.cache
def _started() -> Any:
    openvino = import_openvino()
    try:
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")
    except RuntimeError as error:
        raise ProviderUnavailable(f"OpenVINO does not start: {error}") from error
    return core


_starting = Lock()


class _ForkState:
    """What a fork did to OpenVINO's core: a child opens its own, since the parent's may be locked."""

    freed = False
    """whether a graph was freed, which leaves OpenVINO with idle threads for the next one"""
    usable = True
    """whether this process has all the threads that OpenVINO believes it has"""

    def forked(self) -> None:
        self.usable = self.usable and not self.freed
        if _started.cache_info().currsize:
            never_free(_started())
            _started.cache_clear()


_fork_state = _ForkState()
call_after_fork(_fork_state)


def openvino_core() -> Any:
    """Return OpenVINO's core: one a process, which is never freed.

    On CPUs with AMX its start installs a stack for signals, and its end frees the stack without uninstalling
    it: the next Ctrl-C would be a segmentation fault (2026.4).

    Raises ProviderUnavailable where it does not start, and in a process in which it would hang.
    """
    if not _fork_state.usable:
        raise ProviderUnavailable(
            "OpenVINO does not work in a process that was forked after a model on openvino was freed: "
            "it would wait for threads that only the parent has. Fork before that, start processes by "
            "multiprocessing's 'spawn', or use device 'cpu'"
        )
    with _starting:
        return _started()


def openvino_computes_in(precision: str) -> bool:
    """Return whether OpenVINO, by itself or within onnxruntime, computes in `precision` on this CPU.

    Where the system does not list the CPU's features, int8 is assumed to work and bf16 is not.
    """
    if precision == "bf16":
        if has_openvino():
            return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return bool(has_cpu_features(BF16_FEATURES))
    return precision != "int8" or has_cpu_features(INT8_FEATURES) is not False


class OpenvinoRunner(Runner):
    """Runs a graph with OpenVINO on the CPU."""

    needs = "OpenVINO"
    captions_at_once = 1  # by rounding, a caption's vector depends on how long the longest one beside it is
    _target = "CPU"
    """OpenVINO's name of the device"""

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether OpenVINO itself is installed."""
        return has_openvino()

    @classmethod
    def computes_in(cls, precision: str) -> bool:
        """Return whether OpenVINO computes in `precision` on this CPU."""
        return openvino_computes_in(precision)

    def _properties(self) -> dict[str, Any]:
        """Return OpenVINO's properties for the device."""
        return openvino_settings(self.file.precision, self.settings.threads)

    def _start(self) -> None:
        openvino, core = import_openvino(), openvino_core()
        self.providers = [f"OpenVINO {openvino.__version__}"]
        self._blob: tuple[Any, ...] = ()
        with native_work:
            compiled = self._compiled(openvino, core)
            self._check_tensors(_described(compiled.inputs), _described(compiled.outputs))
            self._request = compiled.create_infer_request()
        self._lock = Lock()

    def __del__(self) -> None:
        with native_work:
            _fork_state.freed = True
            for name in ("_request", "_blob"):
                self.__dict__.pop(name, None)

    def _give_up(self) -> None:
        never_free(self._request)
        never_free(self._blob)  # which it reads from
        del self._request, self._blob

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        with (
            native_work,
            self._lock,
        ):  # a run takes all threads, so that two at once would only wait for each other
            result: npt.NDArray[np.float32] = self._request.infer(inputs, share_inputs=True)[0]
        return result

    def _compiled(self, openvino: Any, core: Any) -> Any:
        """Return the compiled graph from the cache, or compile it and put it there."""
        properties = self._properties()
        if self.settings.cache is None:
            return self._compile(core, properties)
        key = self._key(openvino, core, properties)
        blob = self.settings.cache / f"{key}.blob"
        if (compiled := self._imported(openvino, core, properties, blob)) is not None:
            return compiled
        compiled = self._compile(core, properties)
        self.file.check_unchanged()  # another graph must not end up under this one's key
        try:
            data = compiled.export_model().getbuffer()
        except RuntimeError as error:  # the graph runs all the same
            _log.warning("%s is not written: OpenVINO cannot export what it compiled: %s", blob, error)
        else:
            write_cached(blob, data)
            _make_room(blob)
        return compiled

    def _imported(self, openvino: Any, core: Any, properties: dict[str, Any], blob: Path) -> Any | None:
        """Return the compiled graph in `blob`; None where there is none, or none that works."""
        file = open_cached(blob)
        if file is None:
            return None
        try:
            with file:
                # copy on write: OpenVINO takes no read-only memory
                data = np.memmap(file, np.uint8, mode="c", offset=HEADER_SIZE)
                tensor = openvino.Tensor(data, shared_memory=True)
                compiled = core.import_model(tensor, self._target, properties)
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: nothing follows the head
            _log.warning("%s is not used and compiled again: %s", blob, error)
            return None
        self._blob = data, tensor  # the graph reads from there as long as it lives
        with contextlib.suppress(OSError):  # a read-only folder
            os.utime(blob)  # `_make_room` removes the oldest
        return compiled

    def _key(self, openvino: Any, core: Any, properties: dict[str, Any]) -> str:
        """Hash all that a blob depends on, which excludes the number of threads."""
        names_of_device = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        device = [core.get_property(self._target, name) for name in names_of_device]
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        settings = {name: value for name, value in properties.items() if name != "INFERENCE_NUM_THREADS"}
        parts = [_FORMAT, self.file.sha256, names, settings, openvino.get_version(), device]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _compile(self, core: Any, properties: dict[str, Any]) -> Any:
        from openvino import frontend

        try:
            # this frontend and no other: OpenVINO would choose one by what the file looks like
            reader = frontend.FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(str(self.file.path)))
            return core.compile_model(self._cut(model), self._target, properties)
        except FileRefused:
            raise
        except Exception as error:  # OpenVINO's errors have no common base
            raise ProviderUnavailable(
                f"OpenVINO cannot load {self.file.spec.file}: {error}. Use device 'cpu', or export it again"
            ) from error

    def _cut(self, model: Any) -> Any:
        """Return the part of `model` that computes the outputs from the inputs, any of its tensors."""
        from openvino import Model, opset13

        _pad_rows(model)
        ports = [port for node in model.get_ordered_ops() for port in node.outputs()]
        named = {name: port for port in ports for name in port.names}
        if missing := [spec.name for spec in (*self.inputs, *self.outputs) if spec.name not in named]:
            raise FileRefused(
                f"{self.file.path} is another graph than the manifest says: it has no {', '.join(missing)}. "
                "Export the bundle again"
            )
        own = {name: result for result in model.results for name in result.output(0).names}
        results = [own.get(tensor.name) or opset13.result(named[tensor.name]) for tensor in self.outputs]
        parameters = []
        for tensor in self.inputs:
            port = named[tensor.name]
            if port.node.get_type_name() == "Parameter":
                parameters.append(port.node)
                continue
            parameter = opset13.parameter(port.partial_shape, port.element_type)
            for reader in port.get_target_inputs():
                reader.replace_source_output(parameter.output(0))
            parameter.output(0).set_names({tensor.name})
            parameters.append(parameter)
        return Model(results, parameters, model.friendly_name)


def _pad_rows(model: Any) -> None:
    """Add a row to products with one row a picture, and remove it from their results (`row_padding`)."""
    from openvino import opset13

    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul" or product.get_attributes()["transpose_a"]:
            continue
        rows, result = product.input_value(0), product.output(0)
        shape = rows.get_partial_shape()
        if shape.rank.is_dynamic or [axis for axis, size in enumerate(shape) if size.is_dynamic] != [
            len(shape) - 2
        ]:
            continue
        pads = [0] * len(shape)
        readers, names = result.get_target_inputs(), result.names
        padded = opset13.pad(rows, pads, [*pads[:-2], 1, 0], "constant")
        product.input(0).replace_source_output(padded.output(0))
        sliced = opset13.slice(result, [0], [-1], [1], [len(shape) - 2])
        for reader in readers:
            reader.replace_source_output(sliced.output(0))
        result.set_names(set())
        sliced.output(0).set_names(names)


def _make_room(newest: Path) -> None:
    """Remove blobs beside `newest` until all take at most `_CACHE_BYTES`, least recently used first."""
    ages: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):  # the disk fails: the folder is this user's
        for path in newest.parent.glob("*.blob"):
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                status = path.lstat()
                ages.append((status.st_mtime, status.st_size, path))
    total = 0
    for _, size, path in sorted(ages, reverse=True):
        total += size
        if total > _CACHE_BYTES and path != newest:
            with contextlib.suppress(OSError):  # removed by another process, or mapped by one (Windows)
                path.unlink()


def _described(ports: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return (name, dtype, sizes) of each port; None for a dynamic size."""
    return [
        (
            port.any_name,
            _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
        )
        for port in ports
    ]
