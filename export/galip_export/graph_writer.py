"""Writes the graphs of a bundle in its precisions, and takes back those that the model does not bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import onnx
from galip_runtime.bundle.manifest import GRAPHS
from galip_runtime.errors import QualityGateFailed

from galip.model import Galip
from galip.progress import Progress
from galip_export.calibration import generator_samples, text_samples
from galip_export.precisions import Precision, graph_file, text_precisions
from galip_export.progress import Stage
from galip_export.staging import write
from galip_export.trace import OPSET

__all__ = ["GraphReport", "GraphWriter"]


@dataclass(frozen=True)
class GraphReport:
    """One graph that was written."""

    graph: str
    precision: str
    file: str
    size: int
    """bytes"""
    nodes: int
    opset: int


class GraphWriter:
    """Writes fp32 graphs in several precisions."""

    def __init__(
        self,
        folder: Path,
        model: Galip,
        gates: Mapping[str, Precision],
        left_out: dict[str, str],
        progress: Progress,
    ) -> None:
        """`left_out`: where precisions go that the model does not bear, with the reason."""
        self.graphs: list[GraphReport] = []
        self.chosen: dict[str, Any] = {}
        """what calibration chose, by precision, and by graph if the text encoder has it; plain JSON types"""
        self._folder, self._model, self._gates = folder, model, gates
        self._left_out, self._progress = left_out, progress

    def write(self, names: Sequence[str], encoder: onnx.ModelProto, generator: onnx.ModelProto) -> None:
        """Write both graphs in the precisions `names`.

        Raises QualityGateFailed where none of them is left.
        """
        for name in names:
            Stage(self._progress, f"writing {name}")
            self._try("generator", name, generator)
        for name in text_precisions(self._kept(names)):
            self._try("text_encoder", name, encoder)
        self.keep(self._kept(names))

    def keep(self, names: Sequence[str]) -> None:
        """Remove the graphs that the precisions `names` do not need.

        Raises QualityGateFailed where that is all.
        """
        if not names:
            raise QualityGateFailed(". ".join(dict.fromkeys(self._left_out.values())))
        needed = {"generator": names, "text_encoder": text_precisions(names)}
        kept = [entry for entry in self.graphs if entry.precision in needed[entry.graph]]
        self.graphs = sorted(kept, key=lambda entry: GRAPHS.index(entry.graph))
        self.chosen = {name: chosen for name, chosen in self.chosen.items() if name in names}
        files = {entry.file for entry in self.graphs}
        for path in self._folder.glob("*.onnx"):
            if path.name not in files:
                path.unlink()

    def _kept(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self._left_out]

    def _try(self, graph: str, precision: str, proto: onnx.ModelProto) -> None:
        """Write `proto`, the fp32 `graph`, in `precision`, or note that nothing of it can be in that."""
        try:
            self._write(graph, precision, proto)
        except QualityGateFailed as error:
            if not self._gates[precision].may_fail:
                raise
            self._left_out[precision] = str(error)

    def _write(self, graph: str, precision: str, proto: onnx.ModelProto) -> None:
        """Write the file, unless another precision has written it."""
        path = self._folder / graph_file(graph, precision)
        if not path.exists():
            proto = self._convert(graph, precision, proto)
            write(path, proto.SerializeToString(deterministic=True))
        size, nodes = path.stat().st_size, len(proto.graph.node)
        self.graphs.append(GraphReport(graph, precision, path.name, size, nodes, OPSET))

    def _convert(self, graph: str, precision: str, proto: onnx.ModelProto) -> onnx.ModelProto:
        gate = self._gates[precision]
        if gate.convert is None:
            return proto
        convert = resolve_name(gate.convert)
        if not gate.calibrated:
            converted: onnx.ModelProto = convert(proto)
            return converted
        samples = (text_samples if graph == "text_encoder" else generator_samples)(self._model)
        goal = gate.psnr_db if gate.goal_db is None else gate.goal_db
        converted, chosen = convert(proto, samples, goal, self._progress)
        plain = [asdict(part) for part in chosen] if isinstance(chosen, tuple) else asdict(chosen)
        if gate.text:
            self.chosen.setdefault(precision, {})[graph] = plain
        else:
            self.chosen[precision] = plain
        return converted
