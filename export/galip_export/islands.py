"""Which nodes of a graph stay in fp32 where the rest is computed in fp16: measured, part by part.

A part is all nodes of one kind in one section of the model: the convolutions of a block, the norms of the
image tower. What is as large as a quarter of fp16's range anywhere in it keeps a part in fp32; and so does
error: each part alone is rounded to fp16 (`emulated`), and those that cost the most for their work stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from galip_runtime.errors import QualityGateFailed
from onnx import ModelProto, NodeProto

from galip_export.calibration import Inputs, held_out, output, ranges, rows
from galip_export.comparison import first_percentile
from galip_export.emulation import emulated
from galip_export.mixed_precision import LARGEST, float_tensors, in_half
from galip_export.selection import Psnr, select
from galip_export.work import multiply_adds

__all__ = ["Part", "mixed", "parts"]

Progress = Callable[[int, int], object]

_MARGIN_DB = 5.0
_LARGEST_SHARE = 0.25
_KINDS = {
    "Conv": "convolutions",
    "MatMul": "products",
    "Gemm": "products",
    "LayerNormalization": "norms",
    "Softmax": "softmax",
}


@dataclass(frozen=True)
class Part:
    """Nodes that are in fp16 together or not at all."""

    name: str
    nodes: int
    share_of_largest: float
    """the largest magnitude that goes into them or comes out, as a share of fp16's 65504; but for infinity,
    which masks are made of
    """
    psnr_db: float | None
    """of the held-out samples, the first percentile, with this part alone in fp16; None: no number"""
    fp16: bool


def mixed(
    graph: ModelProto,
    samples: Inputs,
    psnr: Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], Psnr],
    least_db: float,
    progress: Progress = lambda *_: None,
) -> tuple[ModelProto, tuple[Part, ...]]:
    """`graph` in fp16 as far as its output bears it, and what that is. `graph` stays as it is.

    `psnr` judges what comes out against what fp32 gives, `least_db` and a margin is what it must be.
    `progress` is called with (parts measured, parts).

    Raises QualityGateFailed where nothing can be in fp16.
    """
    found = parts(graph)
    progress(0, len(found))
    shares = _shares(graph, found, samples)
    judged = rows(samples, held_out(samples))
    expected = output(graph, judged)
    names = list(found)

    def together(chosen: Sequence[int]) -> Psnr:
        half = {node.name for number in chosen for node in found[names[number]]}
        kept = {node.name for node in graph.graph.node} - half
        with np.errstate(over="ignore", invalid="ignore"):
            return psnr(expected, output(emulated(in_half(graph, kept)), judged))

    alone = []
    for number in range(len(names)):
        alone.append(together([number]))
        progress(number + 1, len(names))
    work = multiply_adds(graph)
    works = [sum(work.get(node.name, 0) for node in found[name]) for name in names]
    able = [number for number, name in enumerate(names) if shares[name] <= _LARGEST_SHARE]
    chosen = {
        able[place]
        for place in select(
            [alone[number] for number in able],
            [works[number] for number in able],
            lambda places: together([able[place] for place in places]),
            least_db + _MARGIN_DB,
        )
    }
    if not chosen:
        raise QualityGateFailed(
            f"no part of the {graph.graph.name} can be in fp16: each alone leaves less than the "
            f"{least_db + _MARGIN_DB:g} dB of PSNR that is asked for, or comes near fp16's largest number. "
            "No bundle was written. Export it without fp16"
        )
    report = []
    for number, name in enumerate(names):
        least = first_percentile(alone[number])
        finite = least if np.isfinite(least) else None
        report.append(Part(name, len(found[name]), shares[name], finite, number in chosen))
    kept = {node.name for number, name in enumerate(names) if number not in chosen for node in found[name]}
    return in_half(graph, kept), tuple(report)


def parts(graph: ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that compute with float32, by section and kind, such as "blocks.3 convolutions"."""
    floats = float_tensors(graph)
    found: dict[str, list[NodeProto]] = {}
    for node in graph.graph.node:
        if node.op_type != "Cast" and any(name in floats for name in (*node.input, *node.output)):
            section = _section(node.name)
            kind = _KINDS.get(node.op_type, "the rest")
            found.setdefault(f"{section} {kind}".lstrip(), []).append(node)
    return found


def _section(node: str) -> str:
    """Of a node named `blocks.3.doubling/Concat_7` it is `blocks.3`, of `vit.blocks.2.out/…` `vit`."""
    modules = node.rpartition("/")[0].split(".")
    return ".".join(modules[:2]) if modules[0] == "blocks" else modules[0]


def _shares(graph: ModelProto, found: dict[str, list[NodeProto]], samples: Inputs) -> dict[str, float]:
    floats = float_tensors(graph)
    weights = {tensor.name for tensor in graph.graph.initializer}
    touched = {
        part: {name for node in nodes for name in (*node.input, *node.output) if name in floats - weights}
        for part, nodes in found.items()
    }
    seen = ranges(graph, sorted(set().union(*touched.values())), samples)
    return {
        part: max(abs(value) for name in names for value in seen[name] if np.isfinite(value)) / LARGEST
        for part, names in touched.items()
    }
