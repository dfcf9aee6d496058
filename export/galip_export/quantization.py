"""int8: the generator's convolutions and matrix products in 8-bit integers, as far as the picture allows.

Static quantization: ranges from calibration, a scale for each output channel of a weight (`qdq`). Everything
but convolutions and MatMuls with a constant matrix stays float: attention, the affine networks, the few Gemms
from noise and sentence.

Calibration aims at the PSNR that is asked for. It first takes errors back where that costs no float: weights
and activations are clipped where finer steps gain more than clipping loses (activations only if the worst
picture agrees), and the mean error of each channel is taken off the convolution's bias. Then it measures what
each group of layers costs alone, on the pictures that suffer most, and looks for the largest set of groups
that reaches the goal on more of them (`sensitivity.choose`).

`onnxruntime.quantization` has no bias correction, and compiles a graph for each set that is measured; nncf
corrects biases and finds layers to give back to float, too, but judges by the tensors of a model that it
compiles again for each layer. Here the graph is compiled once (`int8_trial`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from galip_runtime.errors import QualityGateFailed
from onnx import ModelProto, NodeProto

from galip.progress import Progress, no_progress
from galip_export.activation_ranges import TensorRanges, tensor_ranges
from galip_export.calibration import Inputs, Samples, count, output, rows
from galip_export.comparison import first_percentile
from galip_export.int8_trial import Trial
from galip_export.progress import Stage
from galip_export.qdq import Rounding, activation, quantized
from galip_export.sensitivity import Point, Psnr, choose, count_macs, measure

__all__ = ["Group", "Int8Report", "group_nodes", "quantize"]

_RANGE_PICTURES = 12
_JUDGED_PICTURES = 40
_BATCH = 4
"""pictures at once, and how many of the judged ones every group is measured on alone: the hardest"""
_MARGIN_DB = 2.5
"""required of calibration beyond the goal: it sees fewer pictures than the gate, and computes what stays
float in fp32, where OpenVINO has bf16 on some CPUs, which loses some more
"""


@dataclass(frozen=True)
class Group:
    """Convolutions or products that are in int8 together or not at all."""

    nodes: tuple[str, ...]
    psnr_db: float
    """least PSNR of the hardest pictures with this group alone in int8"""
    multiply_adds: int
    """of a picture"""
    int8: bool


@dataclass(frozen=True)
class Int8Report:
    """What calibration measured and chose."""

    goal_db: float
    """first percentile of PSNR that was asked for"""
    psnr_db: float
    """first percentile over the judged pictures with what was chosen"""
    share: float
    """of the generator's multiply-adds that is in int8"""
    clipped: bool
    """whether activations are clipped to the range of least squared error"""
    groups: tuple[Group, ...]
    curve: tuple[Point, ...]
    """share in int8 against PSNR, from the group with the least error for its multiply-adds to all groups"""


def quantize(
    graph: ModelProto, samples: Samples, goal_db: float, progress: Progress = no_progress
) -> tuple[ModelProto, Int8Report]:
    """Return `graph` in int8 as far as its pictures keep `goal_db`, and the report. `graph` stays as it is.

    All that reads one tensor is one group, and all matrix products are one. Raises QualityGateFailed, which
    says what int8 reaches, where no group can be in int8.
    """
    groups = group_nodes(graph)
    calibration = _Calibration(graph, groups, samples, progress)
    macs = count_macs(graph)
    macs_of_group = [sum(macs[node.name] for node in group) for group in groups]
    total = sum(macs.values())

    def psnr(numbers: Sequence[int]) -> float:
        share = sum(macs_of_group[number] for number in numbers) / total
        return calibration.psnr(numbers, f"measuring {share:.1%} in int8")

    chosen, curve = choose(calibration.alone, macs_of_group, total, psnr, goal_db + _MARGIN_DB)
    if not chosen:
        raise QualityGateFailed(_what_it_reaches(curve, goal_db))
    point = curve[len(chosen) - 1]
    assert point.measured_db is not None
    report = Int8Report(
        goal_db,
        point.measured_db,
        point.share,
        calibration.clipped,
        tuple(
            Group(
                tuple(node.name for node in group),
                first_percentile(np.nan_to_num(calibration.alone[number])),
                macs_of_group[number],
                number in chosen,
            )
            for number, group in enumerate(groups)
        ),
        curve,
    )
    nodes = [node for number in chosen for node in groups[number]]
    return quantized(graph, nodes, calibration.rounding), report


def group_nodes(graph: ModelProto) -> list[list[NodeProto]]:
    """Return convolutions by the tensor that they read, and all products with a constant matrix together."""
    matrices = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    groups: dict[str, list[NodeProto]] = {}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            groups.setdefault(node.input[0], []).append(node)
        elif node.op_type == "MatMul" and node.input[1] in matrices:
            groups.setdefault("", []).append(node)
    return list(groups.values())


class _Calibration:
    """Finds how to round, and measures what rounding costs."""

    rounding: Rounding
    clipped: bool
    alone: list[Psnr]
    """of the hardest pictures, with each group alone in int8"""

    def __init__(
        self, graph: ModelProto, groups: Sequence[Sequence[NodeProto]], samples: Samples, progress: Progress
    ) -> None:
        self._samples, self._progress, self._all = samples, progress, tuple(range(len(groups)))
        ranged, self._judged = _split(samples.inputs)
        self._expected = output(graph, self._judged)
        # OpenVINO 2026.4 refuses asymmetric inputs of products; theirs are nearly symmetric anyway
        symmetric = {node.input[0]: node.op_type != "Conv" for group in groups for node in group}
        stage = Stage(progress, "finding ranges for int8", count(ranged))
        ranges = tensor_ranges(graph, list(symmetric), ranged, stage.advance)
        self._trial = Trial(graph, groups, symmetric, batch=_BATCH)
        self._measured: dict[tuple[int, ...], float] = {}
        whole = self._choose_rounding(ranges, symmetric, ranged)
        hardest = np.sort(np.argsort(whole)[:_BATCH])
        few, expected = rows(self._judged, hardest), self._expected[hardest]
        stage = Stage(progress, "measuring layers in int8", len(groups))

        def psnr(numbers: Sequence[int]) -> Psnr:
            return samples.psnr(expected, self._trial.images(few, numbers, self.rounding, lambda: None))

        self.alone = measure(len(groups), psnr, stage)

    def psnr(self, numbers: Sequence[int], stage: str) -> float:
        """Return the first percentile over the judged pictures with the groups `numbers` in int8."""
        key = tuple(sorted(numbers))
        if key not in self._measured:
            self._measured[key] = first_percentile(self._judge(key, self.rounding, stage))
        return self._measured[key]

    def _choose_rounding(
        self, ranges: Mapping[str, TensorRanges], symmetric: Mapping[str, bool], ranged: Inputs
    ) -> Psnr:
        """Set the rounding, and return the PSNR of the judged pictures with all groups in int8."""
        best: Psnr | None = None
        for clipped in (True, False):
            name = "clipped" if clipped else "whole"
            activations = {
                tensor: activation(*(found.least_squares if clipped else found.whole), symmetric[tensor])
                for tensor, found in ranges.items()
            }
            stage = self._stage(f"correcting biases for {name} ranges", ranged)
            errors = self._trial.mean_errors(ranged, activations, stage.advance)
            rounding = Rounding(activations, {node: -error for node, error in errors.items()})
            found_psnr = self._judge(self._all, rounding, f"measuring {name} ranges")
            if best is None or found_psnr.min() > best.min():
                best, self.rounding, self.clipped = found_psnr, rounding, clipped
        assert best is not None
        self._measured[self._all] = first_percentile(best)
        return best

    def _judge(self, numbers: Sequence[int], rounding: Rounding, stage: str) -> Psnr:
        """Return the PSNR of the judged pictures with the groups `numbers` in int8."""
        advance = self._stage(stage, self._judged).advance
        images = self._trial.images(self._judged, numbers, rounding, advance)
        return self._samples.psnr(self._expected, images)

    def _stage(self, name: str, inputs: Inputs) -> Stage:
        return Stage(self._progress, name, -(-count(inputs) // _BATCH))


def _split(inputs: Inputs) -> tuple[Inputs, Inputs]:
    """Return the samples that give the ranges, and those that are judged: none in common, both spread out."""
    spread = np.linspace(0, count(inputs), _RANGE_PICTURES + _JUDGED_PICTURES, endpoint=False).astype(int)
    for_ranges = np.zeros(len(spread), bool)
    for_ranges[np.linspace(0, len(spread), _RANGE_PICTURES, endpoint=False).astype(int)] = True
    return rows(inputs, spread[for_ranges]), rows(inputs, spread[~for_ranges])


def _what_it_reaches(curve: Sequence[Point], goal_db: float) -> str:
    measured = [
        f"{point.measured_db:.1f} dB with {point.share:.1%}"
        for point in curve
        if point.measured_db is not None
    ]
    return (
        f"int8 does not reach the {goal_db:g} dB of PSNR that are asked for, and {_MARGIN_DB:g} to spare: it "
        f"has {', '.join(measured)} of the multiply-adds in int8. Export without it, or with less "
        "(--int8-psnr)"
    )
