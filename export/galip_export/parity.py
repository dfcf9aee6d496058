"""The parity gate: what the runtime computes from a bundle, against eager PyTorch.

Every precision is judged on a few odd batches, graph by graph. One that is not as exact as fp32 is judged on
many whole pictures, too. Each is run on every device of this machine's CPU that computes in it; fp16 on a
GPU, or emulated.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import galip_runtime
import numpy as np
import numpy.typing as npt
import torch
from galip_runtime.arrays import batches
from galip_runtime.backends.kernel_loading import kernels_off
from galip_runtime.errors import FileRefused, QualityGateFailed
from galip_runtime.noise import MAX_SEED, noise

from galip.clip import clip_tokenizer
from galip.model import Galip
from galip.progress import Progress, no_progress
from galip_export.comparison import Comparison, compare, first_percentile, picture_psnr
from galip_export.devices import EMULATED, verified_on
from galip_export.emulation import emulated_bundle
from galip_export.precisions import PRECISIONS, Precision
from galip_export.progress import Stage
from galip_export.prompts import GATE_PROMPTS

__all__ = ["GraphParity", "PictureParity", "verify_bundle"]

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

_ADVICE = "Use the versions of torch, onnxscript and onnxruntime that galip asks for"

PICTURES = len(GATE_PROMPTS)
_BATCH = 8
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
        """Return plain JSON types."""
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
    """standard deviation of eager's: PSNR says less about pictures with little contrast"""
    psnr_min: float
    psnr_p1: float
    """first percentile: what the gate is for"""
    psnr_median: float
    worst: int
    """number of the picture whose PSNR is least"""


def verify_bundle(
    bundle: Path,
    model: Galip,
    precisions: Sequence[str],
    progress: Progress = no_progress,
    gates: Mapping[str, Precision] = PRECISIONS,
    left_out: dict[str, str] | None = None,
) -> tuple[tuple[GraphParity, ...], tuple[PictureParity, ...]]:
    """Compare the bundle in the folder `bundle` with `model`, through galip_runtime.

    With `left_out`, a precision that may fail is put there where it does, with the reason, and not raised.

    Raises QualityGateFailed where a graph or the pictures are farther from the output of `model` than the
    precision allows, and where anything is NaN or infinite; ProviderUnavailable where a device does not
    start.
    """
    texts, generators = _reference_cases(model, progress)
    by_pictures = any(gates[name].psnr_db is not None for name in precisions)
    originals = _original_pictures(model, progress) if by_pictures else None
    parity: list[GraphParity] = []
    pictures: list[PictureParity] = []
    for precision in precisions:
        gate = gates[precision]
        judged = None if gate.psnr_db is None else originals
        try:
            for device in verified_on(precision):
                known = {(case.precision, case.device) for case in parity}
                found = _verify(bundle, device, gate, (texts, generators), judged, known, progress)
                parity += found[0]
                pictures += found[1]
        except QualityGateFailed as error:
            if left_out is None or not gate.may_fail:
                raise
            left_out[precision] = str(error)
            parity = [case for case in parity if case.precision != precision]
            pictures = [results for results in pictures if results.precision != precision]
    return tuple(parity), tuple(pictures)


def _verify(
    bundle: Path,
    device: str,
    gate: Precision,
    cases: tuple[list[_Case], list[_Case]],
    originals: _Pictures | None,
    known: Collection[tuple[str, str]],
    progress: Progress,
) -> tuple[list[GraphParity], list[PictureParity]]:
    """Return what one device makes of one precision. `known`: of which text encoders there are results."""
    with _load(bundle, device, gate.name) as (runtime, text_precision):
        texts, generators = cases
        judged = (
            []
            if (text_precision, device) in known
            else [(PRECISIONS[text_precision], case) for case in texts]
        )
        judged += [(gate, case) for case in generators]
        steps = len(judged) + (-(-PICTURES // _BATCH) if originals else 0)
        stage = Stage(progress, f"verifying {gate.name} on {device}", steps)
        parity = []
        for row, case in judged:
            parity.append(_judge_case(runtime, row, device, case))
            stage.advance()
        pictures = [_judge_pictures(runtime, gate, device, originals, stage)] if originals else []
    return parity, pictures


@dataclass(frozen=True)
class _Case:
    """A batch for one graph: captions or seeds, the generator's noise and sentence, eager's output."""

    graph: str
    inputs: tuple[Any, ...]
    tensors: tuple[npt.NDArray[Any], ...]
    reference: npt.NDArray[Any]


def _reference_cases(model: Galip, progress: Progress) -> tuple[list[_Case], list[_Case]]:
    """Return the text encoder's and the generator's cases; each graph is judged by itself."""
    text, config = model.config.clip.text, model.config
    tokenizer = clip_tokenizer(text.merges, text.context_length)
    texts, generators = [], []
    stage = Stage(progress, "computing PyTorch's results", len(_CAPTIONS) + len(_SEEDS))
    for captions in _CAPTIONS:
        sentence = _eager("text_encoder", model.text, torch.from_numpy(tokenizer.encode(captions)))
        texts.append(_Case("text_encoder", captions, (), sentence))
        stage.advance()
    sentences = np.concatenate([case.reference for case in texts])
    for seeds in _SEEDS:
        tensors = (noise(seeds, config.generator.noise_dim), sentences[: len(seeds)])
        image = _eager("generator", model.generator, *map(torch.from_numpy, tensors))
        generators.append(_Case("generator", seeds, tensors, image))
        stage.advance()
    return texts, generators


@dataclass(frozen=True)
class _Pictures:
    """The pictures to compare: noise (N, Z), sentence (N, D) and eager PyTorch's images (N, 3, H, W)."""

    noise: npt.NDArray[np.float32]
    sentence: npt.NDArray[np.float32]
    images: npt.NDArray[np.float32]


def _original_pictures(model: Galip, progress: Progress) -> _Pictures:
    text, config = model.config.clip.text, model.config
    tokens = torch.from_numpy(clip_tokenizer(text.merges, text.context_length).encode(GATE_PROMPTS))
    z, sentences, images = noise(range(PICTURES), config.generator.noise_dim), [], []
    parts = list(batches(PICTURES, _BATCH))
    stage = Stage(progress, "generating PyTorch's pictures", len(parts))
    for part in parts:
        sentences.append(_eager("text_encoder", model.text, tokens[part]))
        tensors = map(torch.from_numpy, (z[part], sentences[-1]))
        images.append(_eager("generator", model.generator, *tensors))
        stage.advance()
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
def _load(bundle: Path, device: str, precision: str) -> Iterator[tuple[galip_runtime.Model, str]]:
    """Yield the bundle on a device or `EMULATED`, and its text encoder's precision."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if device == EMULATED:
                copy = emulated_bundle(bundle, Path(folder) / "bundle", precision)
                with kernels_off():
                    emulated = galip_runtime.load(copy, device="cpu")
                yield emulated, precision
                return
            with kernels_off():  # what is judged is the graph, as a machine without galip-kernels runs it
                runtime = galip_runtime.load(bundle, device=device, precision=precision)
        except FileRefused as error:
            raise QualityGateFailed(f"the exported bundle does not load: {error}. {_ADVICE}") from error
        yield runtime, runtime.info()["precision"]["text_encoder"]


def _run(runtime: galip_runtime.Model, precision: str, case: _Case) -> npt.NDArray[Any]:
    try:
        if case.graph == "generator":
            return runtime.decode(*case.tensors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", galip_runtime.PromptCut)  # one of the captions is to be cut
            return runtime.encode_text(case.inputs)
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise QualityGateFailed(
            f"the exported {case.graph} in {precision} fails for {list(case.inputs)}: {error}. {_ADVICE}"
        ) from error


def _judge_case(runtime: galip_runtime.Model, gate: Precision, device: str, case: _Case) -> GraphParity:
    precision = gate.name
    comparison = compare(case.reference, _run(runtime, precision, case))
    allowed = math.inf if gate.relative is None else gate.relative
    least_db = -math.inf if gate.psnr_db is None else gate.psnr_db
    least_db -= _HARDER_DB if case.graph == "generator" else 0
    psnr = math.inf if comparison.psnr_db is None else comparison.psnr_db
    if not (comparison.relative <= allowed and psnr >= least_db):
        raise QualityGateFailed(
            f"the exported {case.graph} in {precision} is not equal to the model on {device}, for "
            f"{list(case.inputs)}: the largest error, {comparison.max_abs:.3g}, is {comparison.relative:.3g} "
            f"of the standard deviation, and {allowed:g} is allowed (mean {comparison.mean_abs:.3g}, PSNR "
            f"{psnr:.1f} dB, and {least_db:g} is needed, cosine {comparison.cosine:.6f}). {_ADVICE}"
        )
    return GraphParity(case.graph, precision, device, case.inputs, comparison)


def _judge_pictures(
    runtime: galip_runtime.Model, gate: Precision, device: str, originals: _Pictures, stage: Stage
) -> PictureParity:
    precision, needed = gate.name, gate.psnr_db
    psnr = np.empty(PICTURES)
    for part in batches(PICTURES, _BATCH):
        seeds = tuple(range(PICTURES))[part]
        tensors, images = (originals.noise[part], originals.sentence[part]), originals.images[part]
        result = _run(runtime, precision, _Case("generator", seeds, tensors, images))
        psnr[part] = picture_psnr(images, result)
        stage.advance()
    worst = int(psnr.argmin())
    parity = PictureParity(
        precision=precision,
        device=device,
        pictures=PICTURES,
        std=float(originals.images.std()),
        psnr_min=float(psnr.min()),
        psnr_p1=first_percentile(psnr),
        psnr_median=float(np.median(psnr)),
        worst=worst,
    )
    if needed is None or not parity.psnr_p1 >= needed:
        raise QualityGateFailed(
            f"the exported generator in {precision} is too far from the model on {device}: the first "
            f"percentile of PSNR over {PICTURES} pictures is {parity.psnr_p1:.1f} dB, and {needed} are "
            f"needed (least {parity.psnr_min:.1f} dB, {GATE_PROMPTS[worst]!r} with seed {worst}; median "
            f"{parity.psnr_median:.1f}). Export it without {precision}"
        )
    return parity
