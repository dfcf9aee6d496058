"""A graph in fp32 to the form in which a precision stores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from onnx import ModelProto

from galip.model import Galip
from galip_export.comparison import picture_psnr, row_psnr
from galip_export.half_weights import half_weights
from galip_export.precisions import PRECISIONS

__all__ = ["Converter"]

Within = Callable[[str, int, int], object]
"""(what is being done, how much is done, how much there is)"""


class Converter:
    """Converts the graphs of one model."""

    def __init__(self, model: Galip, within: Within = lambda *_: None) -> None:
        self.chosen: dict[str, Any] = {"fp16": {}, "int8": []}
        """what is in fp16, by graph, and what is in int8; plain JSON types"""
        self._model, self._within = model, within

    def convert(self, graph: str, proto: ModelProto, stored: str) -> ModelProto:
        """`proto`, the `graph` in fp32, as `stored` says (`Precision.stored`); `proto` stays as it is.

        Raises QualityGateFailed where nothing of it can be in fp16 or int8.
        """
        if stored == "w16a32":
            return half_weights(proto)
        if stored == "fp16":
            return self._mixed(graph, proto)
        if stored == "int8":
            return self._quantized(proto)
        return proto

    def _mixed(self, graph: str, proto: ModelProto) -> ModelProto:
        from galip_export.calibration import generator_inputs, text_inputs  # takes a second to import
        from galip_export.islands import mixed

        of_text = graph == "text_encoder"
        samples = (text_inputs if of_text else generator_inputs)(self._model)
        psnr = row_psnr if of_text else picture_psnr
        searching = partial(self._within, f"finding what of the {graph} stays in fp32")
        result, parts = mixed(proto, samples, psnr, _least_db("fp16"), searching)
        self.chosen["fp16"][graph] = [asdict(each) for each in parts]
        return result

    def _quantized(self, proto: ModelProto) -> ModelProto:
        from galip_export.calibration import generator_inputs
        from galip_export.quantization import quantize

        calibrating = partial(self._within, "calibrating int8")
        result, groups = quantize(proto, generator_inputs(self._model), _least_db("int8"), calibrating)
        self.chosen["int8"] = [asdict(each) for each in groups]
        return result


def _least_db(precision: str) -> float:
    least = PRECISIONS[precision].psnr_db
    assert least is not None
    return least
