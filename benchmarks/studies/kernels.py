"""How close galip-kernels comes to the machine's limit: `python -m studies.kernels BUNDLE --out RESULT.json`.

Measures each generation block by itself, with the last convolution behind it, whose part is small. Counts the
multiply-adds that are computed; Winograd's algorithm leaves out most of those of the graph, which are shown
beside them. The machine's best is a large matrix product in numpy, before all blocks and after them, not
between them: its idle threads stay awake for a while and would slow the blocks down. All is float32.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from galip_bench.markdown import markdown_table
from galip_runtime.backends.kernel_loading import block_weights
from galip_runtime.backends.kernels import KernelBlocks, KernelsUnusable, load_library
from galip_runtime.bundle.generation_blocks import GenerationBlock
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.errors import ProviderUnavailable, UsageError
from galip_runtime.hardware import usable_cpus
from numpy.typing import NDArray

from studies.harness import GeneratorFile, alternate, command

__all__ = ["SCHEMA", "computed_products", "main", "measure", "table"]

SCHEMA = 1
_WARMUP = 3
_PEAK_SIDE = 1536
_PEAK = "peak"
_ALGORITHM = re.compile(r"F\((\d)x\d,3x3\)( of a doubling)?$")


def measure(bundle: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Return the content of the result file.

    numpy's product takes all CPUs, or `OMP_NUM_THREADS` of them: `threads` must be as many. Raises as
    `GeneratorFile.of`, `ProviderUnavailable` without galip-kernels, and `UsageError` for a graph that it does
    not compute.
    """
    generator, count = GeneratorFile.of(bundle), threads or usable_cpus()
    onnx = OnnxFile(generator.path("fp32"))
    try:
        library = load_library()
        found = onnx.generation_blocks({name: value.shape for name, value in generator.inputs.items()})
    except KernelsUnusable as error:
        raise ProviderUnavailable(f"{error}: install galip-kernels") from error
    except ValueError as error:
        raise UsageError(f"galip-kernels does not compute the graph of {bundle}: {error}") from error
    calls: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for number, block in enumerate(found.blocks):
        kernels = KernelBlocks(library, [block_weights(onnx, block)], _to_rgb(block), count)
        calls[f"blocks.{number}"] = _run(kernels, block)
        facts[f"blocks.{number}"] = _facts(kernels, block)
    square = np.random.default_rng(0).standard_normal((_PEAK_SIDE, _PEAK_SIDE), np.float32)
    peak_call: dict[str, Callable[[], object]] = {_PEAK: lambda: square @ square}
    products = alternate(peak_call, rounds, _WARMUP)[_PEAK]
    seconds = alternate(calls, rounds, _WARMUP)
    products += alternate(peak_call, rounds, _WARMUP)[_PEAK]
    peak = _PEAK_SIDE**3 / min(products)
    for name, samples in seconds.items():
        median = statistics.median(samples)
        facts[name]["seconds"] = {"median": median, "samples": samples}
        facts[name]["share_of_peak"] = facts[name]["multiply_adds"] / median / peak
    return {
        "schema": SCHEMA,
        "benchmark": "kernels",
        **generator.facts(count),
        "kernels": {"version": library.version, "target": library.target},
        "peak_multiply_adds_per_second": peak,
        "blocks": facts,
    }


def _facts(kernels: KernelBlocks, block: GenerationBlock) -> dict[str, Any]:
    """Return what the result says of a block besides its time."""
    algorithms = [line.split(" ", 1)[1] for line in kernels.algorithms]
    return {
        "in_shape": block.in_shape,
        "out_shape": block.out_shape,
        "algorithms": algorithms,
        "multiply_adds": computed_products(block, algorithms),
        "multiply_adds_of_the_graph": _direct_products(block),
    }


def computed_products(block: GenerationBlock, algorithms: Sequence[str]) -> int:
    """Return the multiply-adds of a picture: both convolutions, as `algorithms` say, and the shortcut.

    Raises ValueError for an algorithm of another kind.
    """
    (channels, height, width), (out_channels, out_height, out_width) = block.in_shape, block.out_shape
    total = channels * out_channels * height * width if block.shortcut else 0
    for into, algorithm in zip((channels, out_channels), algorithms, strict=True):
        match = _ALGORITHM.match(algorithm)
        if match is None:
            raise ValueError(f"{algorithm!r} is not a Winograd algorithm, such as 'F(4x4,3x3)'")
        tile = int(match[1])
        side = tile + (1 if match[2] else 2)
        total += ceil(out_height / tile) * ceil(out_width / tile) * side**2 * into * out_channels
    return total


def _direct_products(block: GenerationBlock) -> int:
    (channels, _, _), (out_channels, height, width) = block.in_shape, block.out_shape
    taps = 9 * (channels + out_channels) + (channels if block.shortcut else 0)
    return height * width * out_channels * taps


def _to_rgb(block: GenerationBlock) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((3, block.out_shape[0], 3, 3), np.float32), np.zeros(3, np.float32)


def _run(kernels: KernelBlocks, block: GenerationBlock) -> Callable[[], object]:
    features = np.random.default_rng(0).standard_normal((1, *block.in_shape), np.float32)
    widths = [block.in_shape[0]] * 4 + [block.out_shape[0]] * 4
    affines = [np.ones((1, width, 1, 1), np.float32) for width in widths]
    return lambda: kernels.pixels(features, affines)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown with a row for each block of each result."""
    rows = []
    for result in results:
        for name, block in result["blocks"].items():
            (channels, height, _), (out_channels, out_height, _) = block["in_shape"], block["out_shape"]
            rows.append(
                [
                    f"{name}, {channels} → {out_channels}, {height} → {out_height}",
                    ", ".join(block["algorithms"]),
                    f"{block['multiply_adds'] / 1e9:.2f}",
                    f"{block['multiply_adds_of_the_graph'] / 1e9:.2f}",
                    f"{block['seconds']['median'] * 1e3:.1f}",
                    f"{block['share_of_peak']:.0%}",
                ]
            )
    head = [
        "block: channels, pixels",
        "convolutions",
        "G multiply-adds",
        "without Winograd",
        "ms",
        "of the peak",
    ]
    return markdown_table(head, rows)


def main() -> None:
    """Run the study."""
    command("kernels", __doc__, measure, table, rounds=31)


if __name__ == "__main__":
    main()
