"""onnxruntime's options on a GPU: `python -m studies.gpu_options BUNDLE --out RESULT.json`.

Measures a bundle's generator from noise to uint8, in fp16 if the bundle has it, else in fp32: with the
options that galip-runtime sets and with one of them changed, by turns, for one picture and several at once.

Found: nothing yet; there is no result file. `make bench-gpu` writes `gpu_full_options.json`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.backends.assignment import Provider
from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.onnxruntime_gpu_runner import CudaRunner
from galip_runtime.backends.pixels import pixel_outputs
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.bundle.manifest import file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.hardware import usable_cpus

from studies.harness import GeneratorFile, changes_table, command

__all__ = ["AS_USED", "BATCHES", "CHANGES", "SCHEMA", "main", "measure", "table"]

SCHEMA = 1
AS_USED = "as used"
BATCHES = (1, 16, 64)
_WARMUP = 3

CHANGES: dict[str, dict[str, str]] = {
    AS_USED: {},
    "NHWC": {"prefer_nhwc": "1"},
    "convolutions by heuristic": {"cudnn_conv_algo_search": "HEURISTIC"},
    "convolutions by default": {"cudnn_conv_algo_search": "DEFAULT"},
    "bias within convolutions": {"fuse_conv_bias": "1"},
    "TF32": {"use_tf32": "1"},
    "no CUDA graph": {"enable_cuda_graph": "0"},
}


def measure(bundle: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Return the content of the result file.

    Raises as `GeneratorFile.of`, and `ProviderUnavailable` without such a GPU.
    """
    generator, count = GeneratorFile.of(bundle), threads or usable_cpus()
    specs = generator.manifest.graphs["generator"]
    precision = "fp16" if "fp16" in specs else "fp32"
    spec, path = specs[precision], generator.path(precision)
    sha256 = generator.manifest.files[spec.file].sha256
    file = GraphFile(path, sha256, spec, precision, OnnxFile(path), file_signature(path))
    settings = Settings("cuda", count, stream=Stream(0))
    outputs = (*spec.outputs, *pixel_outputs(spec.outputs[0]))
    runners = {
        name: _changed(change)(file, settings, spec.inputs, outputs) for name, change in CHANGES.items()
    }
    seconds: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in runners}
    for number in range(-_WARMUP, rounds):
        for batch in BATCHES:
            inputs = {name: np.repeat(rows, batch, axis=0) for name, rows in generator.inputs.items()}
            for name, runner in runners.items():
                start = time.perf_counter()
                runner.run_pixels(inputs)
                if number >= 0:
                    seconds[name][batch].append(time.perf_counter() - start)
    facts = generator.facts(count)
    return {"schema": SCHEMA, "benchmark": "gpu_options", **facts, "precision": precision, "seconds": seconds}


def _changed(change: Mapping[str, str]) -> type[CudaRunner]:
    class Changed(CudaRunner):
        def _providers(self) -> list[Provider]:
            return [(name, {**options, **change}) for name, options in super()._providers()]

    return Changed


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of result files: a row a change, a column a result and batch size."""
    columns = [
        (
            f"{result['bundle']['image_height']} pixels, {batch} at once",
            {name: of_batches[batch] for name, of_batches in result["seconds"].items()},
        )
        for result in results
        for batch in result["seconds"][AS_USED]
    ]
    return changes_table(columns, AS_USED)


def main() -> None:
    """Run the command."""
    command("gpu_options", __doc__, measure, table, rounds=100)


if __name__ == "__main__":
    main()
