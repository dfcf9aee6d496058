"""Where the time of a picture goes on a CPU: `python -m studies.operators BUNDLE --out RESULT.json`.

Measures the time of each kind of operation in the generator, as OpenVINO, the fastest runner there, reports
it. Also compares the generator's MACs a second with the machine's best: a large convolution or matrix product
alone, through the same library, in the same precision, by turns with the picture.

Found: convolutions and matrix products take most of the time. The released size reaches 52 to 76 % of the
machine's best (`cpu_full_operators.json`), the shipped model 5 to 27 % (`cpu_default_operators.json`).
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from galip_bench.markdown import markdown_table
from galip_export.sensitivity import count_macs
from galip_runtime.backends.openvino_runner import openvino_computes_in, openvino_core, openvino_settings
from galip_runtime.hardware import usable_cpus
from onnx import TensorProto, helper, numpy_helper

from studies.harness import GeneratorFile, command

__all__ = ["SCHEMA", "main", "measure", "table"]

SCHEMA = 1
_SHOWN = 0.02
"""Share of the time from which an operation is in the table."""


@dataclass(frozen=True)
class _Network:
    """A compiled graph and its inputs."""

    request: Any
    inputs: Mapping[str, np.ndarray]

    def seconds(self) -> float:
        start = time.perf_counter()
        self.request.infer(self.inputs, share_inputs=True)
        return time.perf_counter() - start

    def operations(self) -> dict[str, float]:
        """Return the seconds of the last run by type of operation."""
        seconds: dict[str, float] = defaultdict(float)
        for node in self.request.profiling_info:
            seconds[node.node_type] += node.real_time.total_seconds()
        return seconds


def measure(bundle: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Return the content of the result file. Raises as `GeneratorFile.of`."""
    generator, count = GeneratorFile.of(bundle), threads or usable_cpus()
    macs = _macs(onnx.load(generator.path("fp32")))
    results = {
        name: _of_precision(str(generator.path(name)), generator.inputs, macs, name, rounds, count)
        for name in ("fp32", "bf16", "int8")
        if name in generator.manifest.graphs["generator"] and openvino_computes_in(name)
    }
    return {
        "schema": SCHEMA,
        "benchmark": "operators",
        **generator.facts(count),
        "rounds": rounds,
        "multiply_adds": macs,
        "precisions": results,
    }


def _of_precision(
    graph: str, inputs: Mapping[str, np.ndarray], macs: int, precision: str, rounds: int, threads: int
) -> dict[str, Any]:
    picture = _compiled(graph, inputs, precision, threads)
    profiled = _compiled(graph, inputs, precision, threads, PERF_COUNT=True)
    best = [_peak_network(kind, precision, threads) for kind in ("Conv", "MatMul")]
    seconds: list[float] = []
    rates: list[float] = []
    operations: list[dict[str, float]] = []
    for number in range(rounds + 2):
        picture_seconds = picture.seconds()
        peak_rate = max(count / network.seconds() for network, count in best)
        profiled.seconds()
        if number >= 2:
            seconds.append(picture_seconds)
            rates.append(peak_rate)
            operations.append(profiled.operations())
    kinds = {kind: statistics.median(run[kind] for run in operations) for kind in operations[0]}
    total = sum(kinds.values())
    rate = macs / statistics.median(seconds)
    return {
        "seconds": {"median": statistics.median(seconds), "samples": seconds},
        "multiply_adds_per_second": rate,
        "peak_multiply_adds_per_second": statistics.median(rates),
        "share_of_peak": rate / statistics.median(rates),
        "operations": {
            kind: kinds[kind] / total for kind in sorted(kinds, key=kinds.__getitem__, reverse=True)
        },
    }


def _compiled(
    graph: str | bytes, inputs: Mapping[str, np.ndarray], precision: str, threads: int, **more: Any
) -> _Network:
    core = openvino_core()
    properties = openvino_settings(precision, threads)
    compiled = core.compile_model(core.read_model(graph), "CPU", {**properties, **more})
    return _Network(compiled.create_infer_request(), inputs)


def _macs(model: onnx.ModelProto) -> int:
    return sum(count_macs(model).values())


def _peak_network(kind: str, precision: str, threads: int) -> tuple[_Network, int]:
    """Return a convolution (1024 channels, 3×3, 28×28) or a product (2048³) alone, and its MACs."""
    rng = np.random.default_rng(0)
    shape, weight = {
        "Conv": ((1, 1024, 28, 28), (1024, 1024, 3, 3)),
        "MatMul": ((2048, 2048), (2048, 2048)),
    }[kind]
    values = rng.standard_normal(weight, np.float32)
    nodes = []
    constants: dict[str, Any] = {"w": values}
    source, factor = "x", "w"
    if precision == "int8":
        constants = {
            "w": np.clip(np.rint(values * 30), -127, 127).astype(np.int8),
            "w_scale": np.float32(1 / 30),
            "w_zero": np.int8(0),
            "x_scale": np.float32(1 / 30),
            "x_zero": np.uint8(128) if kind == "Conv" else np.int8(0),
        }
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_int8"]),
            helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "x_zero"], ["x_float"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_float"]),
        ]
        source, factor = "x_float", "w_float"
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1]} if kind == "Conv" else {}
    nodes.append(helper.make_node(kind, [source, factor], ["y"], **attributes))
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inputs = {"x": rng.standard_normal(shape, np.float32)}
    return _compiled(model.SerializeToString(), inputs, precision, threads), _macs(model)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown of result files: a table each, a column a precision, a row a kind of operation."""
    parts = []
    for result in results:
        precisions = result["precisions"]
        kinds = [
            kind
            for kind in dict.fromkeys(kind for of in precisions.values() for kind in of["operations"])
            if any(of["operations"].get(kind, 0) >= _SHOWN for of in precisions.values())
        ]
        rows: dict[str, list[str]] = {
            "a picture, ms": [f"{1000 * of['seconds']['median']:.1f}" for of in precisions.values()],
            "10⁹ multiply-adds a second": [
                f"{of['multiply_adds_per_second'] / 1e9:.0f}" for of in precisions.values()
            ],
            "the machine's best": [
                f"{of['peak_multiply_adds_per_second'] / 1e9:.0f}" for of in precisions.values()
            ],
            "share of it": [f"{of['share_of_peak']:.0%}" for of in precisions.values()],
        }
        for kind in kinds:
            rows[f"time in {kind}"] = [f"{of['operations'].get(kind, 0):.0%}" for of in precisions.values()]
        lines = markdown_table(["", *precisions], [[name, *cells] for name, cells in rows.items()])
        size = result["bundle"]["image_height"]
        macs = f"{result['multiply_adds'] / 1e9:.1f}·10⁹ multiply-adds a picture of {size}×{size}"
        parts.append(lines + f"\n\n{macs}; {result['machine']['cpu']}, {result['threads']} threads.")
    return "\n\n".join(parts)


def main() -> None:
    """Run the command."""
    command("operators", __doc__, measure, table, rounds=21)


if __name__ == "__main__":
    main()
