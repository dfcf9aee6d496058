"""The parity gate: what the runtime computes from a bundle, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import galip_runtime
import numpy as np
import numpy.typing as npt
import torch
from galip_runtime.errors import FileRefused, QualityGateFailed
from galip_runtime.noise import MAX_SEED, noise

from galip.clip import clip_tokenizer
from galip.model import Galip
from galip_export.comparison import Comparison, compare
from galip_export.precision import PRECISIONS

__all__ = ["CASES", "GraphParity", "verify_bundle"]

_CAPTIONS = (
    ("a red apple",),
    ("", "🍎 red heart, 3D style"),
    (
        "the moon",
        "a small yellow house with a green door beside a lake at sunset, flat style",
        "Ünïcödé 漢字 !?",
    ),
    (
        "a",
        "dog",
        "a blue car",
        "two birds sitting on a branch above a river",
        "a very long caption about a train, a tree, a boat, a bridge, a house, a mountain, a cloud and " * 6,
    ),
)
"""Batches of 1, 2, 3 and 5; the exporter traces with 2. None twice: the runtime caches them."""

_SEEDS = ((7,), (0, 1), (2, MAX_SEED, 3), (4, 5, 6, 8, 2**63))

_ADVICE = "No bundle was written. Use the versions of torch, onnxscript and onnxruntime that galip asks for"

CASES = len(_CAPTIONS) + len(_SEEDS)
"""Cases that each precision is verified with."""


@dataclass(frozen=True)
class GraphParity:
    """One graph's distance from eager PyTorch on one batch."""

    graph: str
    """`text_encoder` or `generator`"""
    precision: str
    inputs: tuple[str, ...] | tuple[int, ...]
    """captions, or seeds of the noise; the sentences that go with those are the first captions'"""
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        figures = {key: value for key, value in asdict(self).items() if key != "comparison"}
        return {**figures, "inputs": list(self.inputs), "batch": len(self.inputs), **asdict(self.comparison)}


def verify_bundle(
    bundle: Path, model: Galip, precisions: Sequence[str], advance: Callable[[], None] = lambda: None
) -> tuple[GraphParity, ...]:
    """Compare the bundle in the folder `bundle` with `model`, on the CPU, through galip_runtime.

    `advance` is called before each of the `CASES` of each precision.

    Raises QualityGateFailed where a graph's largest error is over the precision's share of the standard
    deviation of what `model` gives, and where anything is NaN or infinite.
    """
    references = list(_references(model))
    results = []
    for precision in precisions:
        runtime = _load(bundle, precision)
        for graph, inputs, tensors, reference in references:
            advance()
            result = _run(runtime, graph, precision, inputs, tensors)
            results.append(
                GraphParity(graph, precision, inputs, _judge(graph, precision, inputs, reference, result))
            )
    return tuple(results)


def _references(
    model: Galip,
) -> Iterator[tuple[str, tuple[Any, ...], tuple[npt.NDArray[Any], ...], npt.NDArray[Any]]]:
    """(graph, inputs, the generator's tensors, what eager makes of them); each graph is judged by itself."""
    text, config = model.config.clip.text, model.config
    tokenizer = clip_tokenizer(text.merges, text.context_length)
    sentences = []
    for captions in _CAPTIONS:
        sentence = _eager("text_encoder", model.text, torch.from_numpy(tokenizer.encode(captions)))
        sentences.append(sentence)
        yield "text_encoder", captions, (), sentence
    rows = np.concatenate(sentences)
    for seeds in _SEEDS:
        tensors = (noise(seeds, config.generator.noise_dim), rows[: len(seeds)])
        yield (
            "generator",
            seeds,
            tensors,
            _eager("generator", model.generator, *map(torch.from_numpy, tensors)),
        )


def _eager(graph: str, module: Any, *tensors: torch.Tensor) -> npt.NDArray[Any]:
    with torch.inference_mode():
        result: npt.NDArray[Any] = module(*tensors).numpy()
    if not np.isfinite(result).all():
        raise QualityGateFailed(
            f"PyTorch itself gets NaN or infinite numbers from the model's {graph}: its training "
            "diverged or its weights are damaged. Export an earlier checkpoint"
        )
    return result


def _load(bundle: Path, precision: str) -> galip_runtime.Model:
    try:
        return galip_runtime.load(bundle, device="cpu", precision=precision)
    except FileRefused as error:
        raise QualityGateFailed(f"the exported bundle does not load: {error}. {_ADVICE}") from error


def _run(
    runtime: galip_runtime.Model,
    graph: str,
    precision: str,
    inputs: tuple[Any, ...],
    tensors: tuple[npt.NDArray[Any], ...],
) -> npt.NDArray[Any]:
    try:
        return runtime.encode_text(inputs) if graph == "text_encoder" else runtime.decode(*tensors)
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise QualityGateFailed(
            f"the exported {graph} in {precision} fails for {list(inputs)}: {error}. {_ADVICE}"
        ) from error


def _judge(
    graph: str, precision: str, inputs: tuple[Any, ...], reference: npt.NDArray[Any], result: npt.NDArray[Any]
) -> Comparison:
    comparison, allowed = compare(reference, result), PRECISIONS[precision]
    if not comparison.relative <= allowed:
        raise QualityGateFailed(
            f"the exported {graph} in {precision} is not equal to the model, for {list(inputs)}: the largest "
            f"error, {comparison.max_abs:.3g}, is {comparison.relative:.3g} of the standard deviation, and "
            f"{allowed:g} is allowed (mean {comparison.mean_abs:.3g}, PSNR {comparison.psnr_db:.1f} dB, "
            f"cosine {comparison.cosine:.6f}). {_ADVICE}"
        )
    return comparison
