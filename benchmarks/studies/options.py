"""onnxruntime's options on a CPU: `python -m studies.options BUNDLE --out RESULT.json`.

Measures the generator in fp32, one picture at a time, with the options that galip-runtime sets and with one
of them changed, by turns.

Found: all optimisations, an arena and packed weights pay off at the released size. Spinning threads save 5 to
17 % on a machine with nothing else to do, but take a CPU from others (`cpu_full_options.json`,
`cpu_default_options.json`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.onnxruntime_runner import session_options
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.bundle.manifest import file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.hardware import usable_cpus

from studies.harness import GeneratorFile, alternate, changes_table, command

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
    """Return the content of the result file.

    Raises as `GeneratorFile.of`, and `ProviderUnavailable` without onnxruntime.
    """
    generator, onnxruntime = GeneratorFile.of(bundle), import_onnxruntime()
    settings = Settings("cpu", threads or usable_cpus())
    spec, path = generator.manifest.graphs["generator"]["fp32"], generator.path("fp32")
    file = GraphFile(
        path, generator.manifest.files[spec.file].sha256, spec, "fp32", OnnxFile(path), file_signature(path)
    )
    model = file.onnx.extract(
        [tensor.name for tensor in spec.inputs], [tensor.name for tensor in spec.outputs]
    )
    onnxruntime.set_default_logger_severity(3)  # no warnings: options are set twice on purpose
    calls: dict[str, Callable[[], object]] = {}
    for name, change in CHANGES.items():
        options = session_options(onnxruntime, file, settings)
        change(options)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        calls[name] = functools.partial(session.run, None, generator.inputs)
    seconds = alternate(calls, rounds, warmup=2)
    return {"schema": SCHEMA, "benchmark": "options", **generator.facts(settings.threads), "seconds": seconds}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of result files: a row a change, a column a result."""
    sizes = [f"{result['bundle']['image_height']} pixels" for result in results]
    return changes_table(
        [(size, result["seconds"]) for size, result in zip(sizes, results, strict=True)], AS_USED
    )


def main() -> None:
    """Run the command."""
    command("options", __doc__, measure, table, rounds=25)


if __name__ == "__main__":
    main()
