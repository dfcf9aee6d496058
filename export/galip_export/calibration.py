"""What a graph computes of prompts and noise that no picture of the gate has: for choosing precisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
from galip_export.prompts import CALIBRATION_PROMPTS

__all__ = [
    "Inputs",
    "Range",
    "generator_inputs",
    "held_out",
    "output",
    "ranges",
    "rows",
    "run",
    "text_inputs",
]

Inputs = Mapping[str, npt.NDArray[np.generic]]
"""a graph's inputs by name, N samples each"""
Range = tuple[float, float]
"""least and greatest value, 0 included"""

_HELD_OUT = 12
_FIRST_SEED = 10**6  # the gate's pictures have others
_AT_ONCE = 8


def text_inputs(model: Galip) -> Inputs:
    """Tokens int64 (N, L) of the prompts."""
    text = model.config.clip.text
    return {"tokens": clip_tokenizer(text.merges, text.context_length).encode(CALIBRATION_PROMPTS)}


def generator_inputs(model: Galip) -> Inputs:
    """Noise float32 (N, Z), and sentences float32 (N, D) of the prompts."""
    assert model.text is not None
    tokens = torch.from_numpy(text_inputs(model)["tokens"])
    with torch.inference_mode():
        sentences = [model.text(tokens[part]).numpy() for part in batches(len(tokens), _AT_ONCE)]
    seeds = range(_FIRST_SEED, _FIRST_SEED + len(tokens))
    return {"noise": noise(seeds, model.config.generator.noise_dim), "sentence": np.concatenate(sentences)}


def rows(inputs: Inputs, chosen: slice | npt.NDArray[np.bool_]) -> Inputs:
    """Some of the samples."""
    return {name: values[chosen] for name, values in inputs.items()}


def held_out(inputs: Inputs) -> npt.NDArray[np.bool_]:
    """Which samples are for errors and not for ranges: every twelfth."""
    return np.asarray(np.arange(_count(inputs)) % _HELD_OUT == 0)


def run(graph: onnx.ModelProto, inputs: Inputs) -> Iterator[list[npt.NDArray[np.float32]]]:
    """All outputs, a few samples at a time, by onnxruntime on the CPU with rounding as the graph has it."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # the same on any CPU
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for part in batches(_count(inputs), _AT_ONCE):
        yield session.run(None, rows(inputs, part))


def output(graph: onnx.ModelProto, inputs: Inputs) -> npt.NDArray[np.float32]:
    """The one output of all samples."""
    return np.concatenate([found for (found,) in run(graph, inputs)])


def ranges(graph: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs) -> dict[str, Range]:
    """Of each of `tensors`, which are float32, over all samples."""
    told = onnx.ModelProto()
    told.CopyFrom(graph)
    del told.graph.output[:]
    for name in tensors:
        for kind in ("Min", "Max"):
            told.graph.node.append(helper.make_node(f"Reduce{kind}", [name], [f"{name}/{kind}"], keepdims=0))
            told.graph.output.append(
                helper.make_tensor_value_info(f"{name}/{kind}", onnx.TensorProto.FLOAT, [])
            )
    found = np.array(list(run(told, inputs)))  # (batches, 2 tensors)
    low, high = found[:, 0::2].min(axis=0), found[:, 1::2].max(axis=0)
    return {
        name: (min(0.0, float(least)), max(0.0, float(greatest)))
        for name, least, greatest in zip(tensors, low, high, strict=True)
    }


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))
