"""What a TensorRT engine computes in: counted, because an fp16 graph can come out as an engine in fp32."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from galip_runtime.errors import QualityGateFailed

__all__ = ["check_fp16", "count_types", "inspect_engine"]

_TYPES = {"HALF": "fp16", "FLOAT": "fp32", "BF16": "bf16", "INT8": "int8"}
_LEAST_FP16 = 0.5
"""share of an fp16 engine's layers, and of its weights' bytes, that must be in fp16"""


def count_types(trt: ModuleType, network: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Return a network's layers that compute with floats, and bytes of their weights, by type."""
    layers: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        dtype = _TYPES.get(layer.get_output(0).dtype.name)
        if dtype is None:
            continue
        if layer.type == trt.LayerType.CONSTANT:
            layer.__class__ = trt.IConstantLayer
            weights[dtype] += layer.weights.nbytes
            continue
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer
            weights[dtype] += layer.kernel.nbytes + layer.bias.nbytes
        if layer.type != trt.LayerType.CAST:
            layers[dtype] += 1
    return dict(layers), dict(weights)


def inspect_engine(trt: ModuleType, plan: bytes) -> dict[str, int] | None:
    """Return the engine's layers by the type of their outputs; None where the GPU here can't load it."""
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is None:  # it is for another GPU
        return None
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers: Counter[str] = Counter()
    for layer in json.loads(text)["Layers"]:
        formats = " ".join(str(output.get("Format/Datatype", "")) for output in layer.get("Outputs", ()))
        for name, dtype in (("Half", "fp16"), ("FP16", "fp16"), ("Float", "fp32"), ("FP32", "fp32")):
            if name in formats:
                layers[dtype] += 1
                break
    return dict(layers)


def check_fp16(name: str, layers: Mapping[str, int], weights: Mapping[str, int], stored: int | None) -> None:
    """Check that most of the engine of the graph `name` is in fp16: layers and weights, by type.

    `stored`: bytes of weights that TensorRT says it stores, if it does. Raises QualityGateFailed.
    """
    shares = {
        part: counts.get("fp16", 0) / max(1, sum(counts.values()))
        for part, counts in (("layers", layers), ("weights", weights))
    }
    if stored is not None:  # twice as many bytes as in the graph: all of them in fp32
        shares["weights as TensorRT stores them"] = 2 - stored / max(1, sum(weights.values()))
    for part, share in shares.items():
        if share < _LEAST_FP16:
            raise QualityGateFailed(
                f"the engine of {name} is not in fp16: {share:.0%} of its {part} are, and at least half have "
                "to be. It was not kept"
            )
