"""onnxruntime's options on a CPU: `python -m studies.options BUNDLE --out RESULT.json`.

The generator in fp32, one picture at a time, with the options that galip-runtime sets and with one of them
changed, by turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.onnxruntime_runner import session_options
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.bundle.manifest import file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.hardware import usable_cpus

from studies.harness import Alone, changes_table, command

__all__ = ["AS_USED", "CHANGES", "SCHEMA", "main", "measure", "table"]

SCHEMA = 1
AS_USED = "as used"


def _entry(name: str, value: str) -> Callable[[Any], None]:
    return lambda options: options.add_session_config_entry(name, value)


def _level(name: str) -> Callable[[Any], None]:
    def change(options: Any) -> None:
        options.graph_optimization_level = getattr(import_onnxruntime().GraphOptimizationLevel, name)

    return change


CHANGES: dict[str, Callable[[Any], None]] = {
    AS_USED: lambda options: None,
    "idle threads spin": _entry("session.intra_op.allow_spinning", "1"),
    "one thread": lambda options: setattr(options, "intra_op_num_threads", 1),
    "twice the threads": lambda options: setattr(
        options, "intra_op_num_threads", 2 * options.intra_op_num_threads
    ),
    "basic optimisation": _level("ORT_ENABLE_BASIC"),
    "extended optimisation": _level("ORT_ENABLE_EXTENDED"),
    "no arena": lambda options: setattr(options, "enable_cpu_mem_arena", False),
    "no memory pattern": lambda options: setattr(options, "enable_mem_pattern", False),
    "weights not packed": _entry("session.disable_prepacking", "1"),
}


def measure(bundle: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """The result file's content. Raises as `Alone.of`, and `ProviderUnavailable` without onnxruntime."""
    alone, onnxruntime = Alone.of(bundle), import_onnxruntime()
    settings = Settings("cpu", threads or usable_cpus())
    spec, path = alone.manifest.graphs["generator"]["fp32"], alone.path("fp32")
    file = GraphFile(
        path, alone.manifest.files[spec.file].sha256, spec, "fp32", OnnxFile(path), file_signature(path)
    )
    names = ([tensor.name for tensor in tensors] for tensors in (spec.inputs, spec.outputs))
    model = file.onnx.extract(*names)
    onnxruntime.set_default_logger_severity(3)  # that an option is set twice is meant
    sessions = {}
    for name, change in CHANGES.items():
        options = session_options(onnxruntime, file, settings)
        change(options)
        sessions[name] = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 2):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(None, alone.inputs)
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
    return {"schema": SCHEMA, "benchmark": "options", **alone.facts(settings.threads), "seconds": seconds}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Result files' contents as a Markdown table: a row each change, a column each result."""
    sizes = [f"{result['bundle']['image_height']} pixels" for result in results]
    return changes_table(
        [(size, result["seconds"]) for size, result in zip(sizes, results, strict=True)], AS_USED
    )


def main() -> None:
    """The command."""
    command("options", __doc__, measure, table, rounds=25)


if __name__ == "__main__":
    main()
