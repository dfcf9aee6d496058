"""Calibration: what a graph computes from prompts and noise that the parity gate never uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from galip_runtime.arrays import batches
from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.hardware import usable_cpus
from galip_runtime.noise import noise
from onnx import helper

from galip.clip import clip_tokenizer
from galip.model import Galip
from galip_export.comparison import picture_psnr, row_psnr
from galip_export.prompts import CALIBRATION_PROMPTS

__all__ = [
    "Inputs",
    "Range",
    "Samples",
    "count",
    "generator_samples",
    "held_out",
    "output",
    "ranges",
    "rows",
    "run",
    "session",
    "text_samples",
]

Inputs = Mapping[str, npt.NDArray[np.generic]]
"""a graph's inputs by name, N samples each"""
Range = tuple[float, float]
"""least and greatest value, 0 included"""

_HELD_OUT = 12
_FIRST_SEED = 10**6  # the gate's pictures have others
_BATCH = 8


@dataclass(frozen=True)
class Samples:
    """What a graph is calibrated with."""

    inputs: Inputs
    psnr: Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float64]]
    """of outputs against the reference's: (reference, result) → dB (N)"""


def text_samples(model: Galip) -> Samples:
    """Return the text encoder's: tokens int64 (N, L) of the prompts."""
    return Samples({"tokens": _tokens(model)}, row_psnr)


def generator_samples(model: Galip) -> Samples:
    """Return the generator's: noise float32 (N, Z), and sentences float32 (N, D) of the prompts."""
    assert model.text is not None
    tokens = torch.from_numpy(_tokens(model))
    with torch.inference_mode():
        sentences = [model.text(tokens[batch]).numpy() for batch in batches(len(tokens), _BATCH)]
    seeds = range(_FIRST_SEED, _FIRST_SEED + len(tokens))
    z = noise(seeds, model.config.generator.noise_dim)
    return Samples({"noise": z, "sentence": np.concatenate(sentences)}, picture_psnr)


def _tokens(model: Galip) -> npt.NDArray[np.int64]:
    text = model.config.clip.text
    return clip_tokenizer(text.merges, text.context_length).encode(CALIBRATION_PROMPTS)


def rows(inputs: Inputs, chosen: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Inputs:
    """Return some of the samples."""
    return {name: values[chosen] for name, values in inputs.items()}


def held_out(inputs: Inputs) -> npt.NDArray[np.bool_]:
    """Return which samples measure errors and set no ranges: every twelfth."""
    return np.asarray(np.arange(count(inputs)) % _HELD_OUT == 0)


def session(graph: onnx.ModelProto) -> Any:
    """Return onnxruntime's session for `graph` on the CPU, which rounds where the graph does."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # the same on any CPU
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(graph: onnx.ModelProto, inputs: Inputs) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield all outputs, a batch at a time."""
    opened = session(graph)
    for batch in batches(count(inputs), _BATCH):
        yield opened.run(None, rows(inputs, batch))


def output(graph: onnx.ModelProto, inputs: Inputs) -> npt.NDArray[np.float32]:
    """Return the graph's only output for all samples."""
    return np.concatenate([batch for (batch,) in run(graph, inputs)])


def ranges(graph: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs) -> dict[str, Range]:
    """Return the range of each of `tensors`, which are float32, over all samples."""
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    del extended.graph.output[:]
    for name in tensors:
        for bound in ("Min", "Max"):
            extended.graph.node.append(
                helper.make_node(f"Reduce{bound}", [name], [f"{name}/{bound}"], keepdims=0)
            )
            extended.graph.output.append(
                helper.make_tensor_value_info(f"{name}/{bound}", onnx.TensorProto.FLOAT, [])
            )
    bounds = np.array(list(run(extended, inputs)))  # (batches, 2 tensors)
    low, high = bounds[:, 0::2].min(axis=0), bounds[:, 1::2].max(axis=0)
    return {
        name: (min(0.0, float(least)), max(0.0, float(greatest)))
        for name, least, greatest in zip(tensors, low, high, strict=True)
    }


def count(inputs: Inputs) -> int:
    """Return the number of samples."""
    return len(next(iter(inputs.values())))
