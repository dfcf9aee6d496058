"""Graphs of small models, each traced once for all tests: most of a small export's time is tracing."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
from galip_export.trace import export_generator, export_text_encoder
from torch import nn

from galip.model import Galip

__all__ = ["TracedGraphs"]

_LARGEST = 100e6  # bytes of weights; a graph of the released size is used by one test file only


class TracedGraphs:
    """The exporter's two functions, which keep in `folder` what they return. Processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def text_encoder(self, model: Galip) -> onnx.ModelProto:
        """Return a new copy of what `export_text_encoder` returns."""
        return self._once(lambda: export_text_encoder(model), model, model.text, "text_encoder")

    def generator(self, model: Galip, rewrites: str = "exact") -> onnx.ModelProto:
        """Return a new copy of what `export_generator` returns."""
        return self._once(lambda: export_generator(model, rewrites), model, model.generator, rewrites)

    def _once(
        self, trace: Callable[[], onnx.ModelProto], model: Galip, network: nn.Module | None, kind: str
    ) -> onnx.ModelProto:
        weights = {} if network is None else network.state_dict()
        if not weights or sum(tensor.nbytes for tensor in weights.values()) > _LARGEST:
            return trace()
        digest = hashlib.sha256(f"{kind} {model.config.to_dict()}".encode())
        for name, tensor in weights.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().numpy().tobytes())
        file = self._folder / f"{digest.hexdigest()}.onnx"
        if not file.exists():
            graph = trace()
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as part:
                part.write(graph.SerializeToString())
            os.replace(part.name, file)
        return onnx.load(file)
