"""The parity gate: what the runtime computes from a bundle, against eager PyTorch.

Every precision is judged on a few odd batches, graph by graph; one that is not as exact as fp32 on many whole
pictures, too. Each on every device of this machine's CPU that computes in it; fp16 on a GPU, or emulated.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import galip_runtime
import numpy as np
import numpy.typing as npt
import torch
from galip_runtime.arrays import batches
from galip_runtime.errors import FileRefused, QualityGateFailed
from galip_runtime.noise import MAX_SEED, noise

from galip.clip import clip_tokenizer
from galip.model import Galip
from galip_export.comparison import Comparison, compare, first_percentile, picture_psnr
from galip_export.emulation import emulated_bundle
from galip_export.precisions import EMULATED, PRECISIONS, text_precisions, verified_on
from galip_export.prompts import GATE_PROMPTS

__all__ = ["GraphParity", "PictureParity", "steps", "verify_bundle"]

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

PICTURES = len(GATE_PROMPTS)
_AT_ONCE = 8
_HARDER_DB = 12.0
"""by how much an odd batch of a picture or two may be worse than the gate for many"""


@dataclass(frozen=True)
class GraphParity:
    """One graph's distance from eager PyTorch on one batch."""

    graph: str
    """`text_encoder` or `generator`"""
    precision: str
    device: str
    inputs: tuple[str, ...] | tuple[int, ...]
    """captions, or seeds of the noise; the sentences that go with those are the first captions'"""
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        figures = {key: value for key, value in asdict(self).items() if key != "comparison"}
        return {**figures, "inputs": list(self.inputs), "batch": len(self.inputs), **asdict(self.comparison)}


@dataclass(frozen=True)
class PictureParity:
    """Many pictures' distance from eager PyTorch's: of `GATE_PROMPTS`, the n-th with seed n.

    PSNR is `picture_psnr`'s, in dB.
    """

    precision: str
    device: str
    pictures: int
    std: float
    """standard deviation of eager's: PSNR says less of pictures with little contrast"""
    psnr_min: float
    psnr_p1: float
    """first percentile: what the gate is for"""
    psnr_median: float
    worst: int
    """number of the picture whose PSNR is least"""


def steps(precisions: Sequence[str]) -> int:
    """How often `verify_bundle` calls `advance` for `precisions`."""
    texts = text_precisions(precisions)
    beside = {name: name if name in texts else texts[0] for name in precisions}
    encoders = {(beside[name], device) for name in precisions for device in verified_on(name)}
    generators = sum(len(verified_on(name)) for name in precisions)
    parts = -(-PICTURES // _AT_ONCE)
    judged = sum(len(verified_on(name)) for name in precisions if _by_pictures(name))
    return len(_CAPTIONS) * len(encoders) + len(_SEEDS) * generators + parts * (judged + bool(judged))


def verify_bundle(
    bundle: Path, model: Galip, precisions: Sequence[str], advance: Callable[[], None] = lambda: None
) -> tuple[tuple[GraphParity, ...], tuple[PictureParity, ...]]:
    """Compare the bundle in the folder `bundle` with `model`, through galip_runtime.

    `advance` is called `steps(precisions)` times.

    Raises QualityGateFailed where a graph or the pictures are farther from what `model` gives than the
    precision allows, and where anything is NaN or infinite; ProviderUnavailable where a device does not
    start.
    """
    texts, generators = _references(model)
    originals = _originals(model, advance) if any(map(_by_pictures, precisions)) else None
    cases: list[GraphParity] = []
    pictures: list[PictureParity] = []
    for precision in precisions:
        for device in verified_on(precision):
            with _opened(bundle, device, precision) as (runtime, of_text):
                new = (of_text, device) not in {(case.precision, case.device) for case in cases}
                for graph, name, inputs, tensors, reference in [
                    *(("text_encoder", of_text, *each) for each in texts if new),
                    *(("generator", precision, *each) for each in generators),
                ]:
                    advance()
                    result = _run(runtime, graph, name, inputs, tensors)
                    comparison = _judge(graph, name, device, inputs, reference, result)
                    cases.append(GraphParity(graph, name, device, inputs, comparison))
                if originals is not None and _by_pictures(precision):
                    pictures.append(_judge_pictures(runtime, precision, device, originals, advance))
    return tuple(cases), tuple(pictures)


def _by_pictures(precision: str) -> bool:
    return PRECISIONS[precision].psnr_db is not None


_Case = tuple[tuple[Any, ...], tuple[npt.NDArray[Any], ...], npt.NDArray[Any]]
"""inputs, the generator's tensors, what eager makes of them"""


def _references(model: Galip) -> tuple[list[_Case], list[_Case]]:
    """The text encoder's and the generator's cases; each graph is judged by itself."""
    text, config = model.config.clip.text, model.config
    tokenizer = clip_tokenizer(text.merges, text.context_length)
    texts: list[_Case] = []
    for captions in _CAPTIONS:
        sentence = _eager("text_encoder", model.text, torch.from_numpy(tokenizer.encode(captions)))
        texts.append((captions, (), sentence))
    rows = np.concatenate([sentence for *_, sentence in texts])
    generators: list[_Case] = []
    for seeds in _SEEDS:
        tensors = (noise(seeds, config.generator.noise_dim), rows[: len(seeds)])
        picture = _eager("generator", model.generator, *map(torch.from_numpy, tensors))
        generators.append((seeds, tensors, picture))
    return texts, generators


@dataclass(frozen=True)
class _Pictures:
    """What pictures are compared: noise (N, Z) and sentence (N, D), and eager's (N, 3, H, W) of them."""

    noise: npt.NDArray[np.float32]
    sentence: npt.NDArray[np.float32]
    images: npt.NDArray[np.float32]


def _originals(model: Galip, advance: Callable[[], None]) -> _Pictures:
    text, config = model.config.clip.text, model.config
    tokens = torch.from_numpy(clip_tokenizer(text.merges, text.context_length).encode(GATE_PROMPTS))
    z, sentences, images = noise(range(PICTURES), config.generator.noise_dim), [], []
    for part in batches(PICTURES, _AT_ONCE):
        advance()
        sentences.append(_eager("text_encoder", model.text, tokens[part]))
        tensors = map(torch.from_numpy, (z[part], sentences[-1]))
        images.append(_eager("generator", model.generator, *tensors))
    return _Pictures(z, np.concatenate(sentences), np.concatenate(images))


def _eager(graph: str, module: Any, *tensors: torch.Tensor) -> npt.NDArray[Any]:
    with torch.inference_mode():
        result: npt.NDArray[Any] = module(*tensors).numpy()
    if not np.isfinite(result).all():
        raise QualityGateFailed(
            f"PyTorch itself gets NaN or infinite numbers from the model's {graph}: its training "
            "diverged or its weights are damaged. Export an earlier checkpoint"
        )
    return result


@contextlib.contextmanager
def _opened(bundle: Path, device: str, precision: str) -> Iterator[tuple[galip_runtime.Model, str]]:
    """The bundle on a device or `EMULATED`, and its text encoder's precision."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if device == EMULATED:
                copy = emulated_bundle(bundle, Path(folder) / "bundle", precision)
                yield galip_runtime.load(copy, device="cpu"), precision
                return
            runtime = galip_runtime.load(bundle, device=device, precision=precision)
        except FileRefused as error:
            raise QualityGateFailed(f"the exported bundle does not load: {error}. {_ADVICE}") from error
        yield runtime, runtime.info()["precision"]["text_encoder"]


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
    graph: str,
    precision: str,
    device: str,
    inputs: tuple[Any, ...],
    reference: npt.NDArray[Any],
    result: npt.NDArray[Any],
) -> Comparison:
    comparison, gate = compare(reference, result), PRECISIONS[precision]
    allowed = math.inf if gate.relative is None else gate.relative
    least = -math.inf if gate.psnr_db is None else gate.psnr_db
    least -= _HARDER_DB if graph == "generator" else 0
    psnr = math.inf if comparison.psnr_db is None else comparison.psnr_db
    if not (comparison.relative <= allowed and psnr >= least):
        raise QualityGateFailed(
            f"the exported {graph} in {precision} is not equal to the model on {device}, for {list(inputs)}: "
            f"the largest error, {comparison.max_abs:.3g}, is {comparison.relative:.3g} of the standard "
            f"deviation, and {allowed:g} is allowed (mean {comparison.mean_abs:.3g}, PSNR {psnr:.1f} dB, "
            f"and {least:g} is needed, cosine {comparison.cosine:.6f}). {_ADVICE}"
        )
    return comparison


def _judge_pictures(
    runtime: galip_runtime.Model,
    precision: str,
    device: str,
    originals: _Pictures,
    advance: Callable[[], None],
) -> PictureParity:
    psnr = np.empty(PICTURES)
    for part in batches(PICTURES, _AT_ONCE):
        advance()
        seeds = tuple(range(PICTURES))[part]
        tensors = (originals.noise[part], originals.sentence[part])
        result = _run(runtime, "generator", precision, seeds, tensors)
        psnr[part] = picture_psnr(originals.images[part], result)
    worst, needed = int(psnr.argmin()), PRECISIONS[precision].psnr_db
    found = PictureParity(
        precision=precision,
        device=device,
        pictures=PICTURES,
        std=float(originals.images.std()),
        psnr_min=float(psnr.min()),
        psnr_p1=first_percentile(psnr),
        psnr_median=float(np.median(psnr)),
        worst=worst,
    )
    if needed is None or not found.psnr_p1 >= needed:
        raise QualityGateFailed(
            f"the exported generator in {precision} is too far from the model on {device}: of {PICTURES} "
            f"pictures the first percentile of PSNR is {found.psnr_p1:.1f} dB, and {needed} are needed "
            f"(least {found.psnr_min:.1f} dB, {GATE_PROMPTS[worst]!r} with seed {worst}; median "
            f"{found.psnr_median:.1f}). No bundle was written. Export it without {precision}"
        )
    return found
