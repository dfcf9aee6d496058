"""Where the time of a picture goes on a CPU: `python -m studies.operators BUNDLE --out RESULT.json`.

OpenVINO, the fastest way there, tells how long each operation of the generator takes. Beside that stands how
fast the whole is as a share of what this machine reaches at its best: a convolution or a matrix product that
nothing but arithmetic holds up, through the same library, in the same precision, in turn with the picture.
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
from galip_export.sensitivity import count_macs
from galip_runtime.backends.openvino_runner import openvino_computes_in, openvino_core, openvino_settings
from galip_runtime.hardware import usable_cpus
from onnx import TensorProto, helper, numpy_helper

from studies.harness import Alone, command

__all__ = ["SCHEMA", "main", "measure", "table"]

SCHEMA = 1
_SHOWN = 0.02
"""share of the time below which operations are put together"""


@dataclass(frozen=True)
class _Network:
    """Something to run again and again."""

    request: Any
    inputs: Mapping[str, np.ndarray]

    def seconds(self) -> float:
        began = time.perf_counter()
        self.request.infer(self.inputs, share_inputs=True)
        return time.perf_counter() - began

    def operations(self) -> dict[str, float]:
        """Seconds of the last run by type of operation."""
        found: dict[str, float] = defaultdict(float)
        for each in self.request.profiling_info:
            found[each.node_type] += each.real_time.total_seconds()
        return found


def measure(bundle: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """The result file's content. Raises as `Alone.of`."""
    alone, count = Alone.of(bundle), threads or usable_cpus()
    products = _products(onnx.load(alone.path("fp32")))
    found = {
        name: _of_precision(str(alone.path(name)), alone.inputs, products, name, rounds, count)
        for name in ("fp32", "bf16", "int8")
        if name in alone.manifest.graphs["generator"] and openvino_computes_in(name)
    }
    return {
        "schema": SCHEMA,
        "benchmark": "operators",
        **alone.facts(count),
        "rounds": rounds,
        "multiply_adds": products,
        "precisions": found,
    }


def _of_precision(
    graph: str, inputs: Mapping[str, np.ndarray], products: int, precision: str, rounds: int, threads: int
) -> dict[str, Any]:
    picture = _compiled(graph, inputs, precision, threads)
    profiled = _compiled(graph, inputs, precision, threads, PERF_COUNT=True)
    best = [_peak_network(kind, precision, threads) for kind in ("Conv", "MatMul")]
    seconds: list[float] = []
    rates: list[float] = []
    operations: list[dict[str, float]] = []
    for number in range(rounds + 2):
        took = picture.seconds()
        reached = max(count / network.seconds() for network, count in best)
        profiled.seconds()
        if number >= 2:
            seconds.append(took)
            rates.append(reached)
            operations.append(profiled.operations())
    kinds = {kind: statistics.median(each[kind] for each in operations) for kind in operations[0]}
    whole = sum(kinds.values())
    rate = products / statistics.median(seconds)
    return {
        "seconds": {"median": statistics.median(seconds), "samples": seconds},
        "multiply_adds_per_second": rate,
        "peak_multiply_adds_per_second": statistics.median(rates),
        "share_of_peak": rate / statistics.median(rates),
        "operations": {
            kind: kinds[kind] / whole for kind in sorted(kinds, key=kinds.__getitem__, reverse=True)
        },
    }


def _compiled(
    graph: str | bytes, inputs: Mapping[str, np.ndarray], precision: str, threads: int, **more: Any
) -> _Network:
    core = openvino_core()
    properties = openvino_settings(precision, threads)
    compiled = core.compile_model(core.read_model(graph), "CPU", {**properties, **more})
    return _Network(compiled.create_infer_request(), inputs)


def _products(model: onnx.ModelProto) -> int:
    return sum(count_macs(model).values())


def _peak_network(kind: str, precision: str, threads: int) -> tuple[_Network, int]:
    """A convolution (1024 channels, 3×3, 28×28) or a product (2048³) alone, and its multiply-adds."""
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
    return _compiled(model.SerializeToString(), inputs, precision, threads), _products(model)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Result files' contents as a Markdown table: a column each precision, a row each kind of operation."""
    parts = []
    for result in results:
        found = result["precisions"]
        kinds = [
            kind
            for kind in dict.fromkeys(kind for each in found.values() for kind in each["operations"])
            if any(each["operations"].get(kind, 0) >= _SHOWN for each in found.values())
        ]
        lines = [f"| | {' | '.join(found)} |", "|---" + "|--:" * len(found) + "|"]
        rows: dict[str, list[str]] = {
            "a picture, ms": [f"{1000 * each['seconds']['median']:.1f}" for each in found.values()],
            "10⁹ multiply-adds a second": [
                f"{each['multiply_adds_per_second'] / 1e9:.0f}" for each in found.values()
            ],
            "the machine's best": [
                f"{each['peak_multiply_adds_per_second'] / 1e9:.0f}" for each in found.values()
            ],
            "share of it": [f"{each['share_of_peak']:.0%}" for each in found.values()],
        }
        for kind in kinds:
            rows[f"time in {kind}"] = [f"{each['operations'].get(kind, 0):.0%}" for each in found.values()]
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
        size = result["bundle"]["image_height"]
        products = f"{result['multiply_adds'] / 1e9:.1f}·10⁹ multiply-adds a picture of {size}×{size}"
        parts.append(
            "\n".join(lines) + f"\n\n{products}; {result['machine']['cpu']}, {result['threads']} threads."
        )
    return "\n\n".join(parts)


def main() -> None:
    """The command."""
    command("operators", __doc__, measure, table, rounds=21)


if __name__ == "__main__":
    main()
