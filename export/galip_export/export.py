"""A checkpoint to a bundle: the main job."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from galip_runtime.backends.engines import PRECISIONS as ENGINE_PRECISIONS
from galip_runtime.backends.engines import EngineRecord
from galip_runtime.backends.libraries import backend_versions, has_openvino, import_openvino
from galip_runtime.bundle.manifest import (
    GRAPHS,
    MANIFEST_NAME,
    GraphSpec,
    Manifest,
    Source,
    TokenizerSpec,
    describe_file,
    graph_contract,
    sha256_file,
)
from galip_runtime.errors import UsageError

from galip.checkpoint import CheckpointInfo, load_galip, read_info
from galip.clip import clip_tokenizer
from galip.model import Galip
from galip_export.conversion import Converter
from galip_export.engines import build_engines
from galip_export.parity import GraphParity, PictureParity, steps, verify_bundle
from galip_export.precisions import PRECISIONS, check_precisions, graph_file, text_precisions
from galip_export.rewrites import check_rewrites
from galip_export.staging import staged_bundle, write
from galip_export.tensorrt_builder import Builder, BuildOptions
from galip_export.trace import OPSET, dimensions, export_generator, export_text_encoder

__all__ = ["ExportReport", "GraphReport", "export_bundle"]

PARITY_NAME = "parity.json"
_TOKENIZER_NAME = "merges.txt.gz"
# of fp32's files; how much is in fp16 or int8 is not known before
_SIZES = {"fp32": 1.0, "w16a32": 0.5, "fp16": 1.0, "int8": 1.0}
_SMALL_FILES = 16 * 2**20  # bytes: vocabulary, manifest, the graphs without their weights

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


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


@dataclass(frozen=True)
class ExportReport:
    """What an export made and measured."""

    bundle: Path
    checkpoint: Path
    graphs: tuple[GraphReport, ...]
    parity: tuple[GraphParity, ...]
    pictures: tuple[PictureParity, ...]
    engines: tuple[EngineRecord, ...]
    seconds: float

    def worst(self, graph: str, precision: str) -> GraphParity:
        """The case in which `graph` in `precision` is farthest from eager PyTorch, in units of its std."""
        cases = [case for case in self.parity if (case.graph, case.precision) == (graph, precision)]
        return max(cases, key=lambda case: case.comparison.relative)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "bundle": str(self.bundle),
            "checkpoint": str(self.checkpoint),
            "graphs": [
                {**asdict(graph), "parity": self.worst(graph.graph, graph.precision).to_dict()}
                for graph in self.graphs
            ],
            "pictures": [asdict(each) for each in self.pictures],
            "engines": [asdict(each) for each in self.engines],
            "seconds": self.seconds,
        }


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    precisions: Iterable[str] = ("fp32",),
    rewrites: str = "exact",
    engines: BuildOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Export the GALIP `checkpoint` to the new folder `out`, verified against eager PyTorch.

    `out` appears whole at the end or not at all; with `overwrite` it replaces a bundle or an empty folder.
    `rewrites`: `exact`, the generator computes the same with less work; `none`, it is as in the checkpoint.
    `engines`: the TensorRT engines to build of the graphs in fp16, or in fp32 where fp16 is not asked for.
    The same checkpoint gives the same graphs, byte for byte; in int8 on the same kind of machine. `progress`
    is called as each step begins.

    Raises UsageError for an unknown precision or rewrites and an `out` that cannot be written, FileRefused
    for a checkpoint that is broken or has no text tower, QualityGateFailed where a graph or its pictures are
    farther from the model's than the precision allows or an engine is not in fp16, ProviderUnavailable where
    nothing here computes in a precision or builds engines.
    """
    started = time.perf_counter()
    wanted = check_precisions(precisions)
    check_rewrites(rewrites)
    builder = Builder(engines, out) if engines else None
    if builder:
        builder.archs()
        if not {*ENGINE_PRECISIONS} & {*wanted}:
            raise UsageError(
                f"engines are built of graphs in fp16 or fp32, not of {', '.join(wanted)}: add fp16"
            )
    info = read_info(checkpoint)
    texts = text_precisions(wanted)
    stored = {PRECISIONS[name].stored for name in wanted}
    told = _Steps(progress, 4 + len(wanted) + steps(wanted))
    size = sum(round(_size(info) * _SIZES[each]) for each in stored)
    records: tuple[EngineRecord, ...] = ()
    with staged_bundle(out, overwrite=overwrite, size=size) as folder:
        told.begin("reading the checkpoint")
        model = load_galip(checkpoint, needs=("text", "generator"))
        del model.image, model.discriminator  # not exported: memory for what is
        told.begin("exporting the text encoder")
        encoder = export_text_encoder(model)
        told.begin("exporting the generator")
        generator = export_generator(model, rewrites)
        converter = Converter(model, told.within)
        writer = _Writer(folder, converter)
        for name in texts:
            writer.write("text_encoder", name, encoder)
        for name in wanted:
            told.begin(f"writing {name}")
            writer.write("generator", name, generator)
        del encoder, generator  # as large as the model each
        source = Source(_printable(checkpoint.name), sha256_file(checkpoint))
        manifest = _write_manifest(folder, model, writer.graphs, source)
        verifying = partial(told.begin, "verifying against PyTorch")
        parity, pictures = verify_bundle(folder, model, wanted, verifying)
        if builder:
            records, files = build_engines(folder, manifest, builder, told.within)
            manifest = replace(manifest, files={**manifest.files, **files})
        told.begin("finishing")
        _write_parity(folder, manifest, parity, pictures, rewrites, converter.chosen)
    told.end()
    return ExportReport(
        out, checkpoint, tuple(writer.graphs), parity, pictures, records, time.perf_counter() - started
    )


class _Steps:
    """Tells `progress` of each step that begins."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._begun = progress, total, 0

    def begin(self, what: str) -> None:
        if self._progress:
            self._progress(what, self._begun, self._total)
        self._begun += 1

    def within(self, what: str, done: int, total: int) -> None:
        """Tell how far the step itself is."""
        if self._progress:
            self._progress(what, done, total)

    def end(self) -> None:
        assert self._begun == self._total, (self._begun, self._total)
        if self._progress:
            self._progress("done", self._total, self._total)


def _printable(name: str) -> str:
    """A file's name as text in Unicode: bytes that are none are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _size(info: CheckpointInfo) -> int:
    """Bytes of a bundle in one precision, float32 at most."""
    shapes = {**info.shapes, **{name: info.shapes.get(stored, ()) for name, stored in info.aliases.items()}}
    numbers = sum(
        math.prod(shape) for name, shape in shapes.items() if name.startswith(("text.", "generator."))
    )
    return 4 * numbers + _SMALL_FILES


class _Writer:
    """Writes graphs, given in fp32, in the precisions asked for."""

    def __init__(self, folder: Path, converter: Converter) -> None:
        self.graphs: list[GraphReport] = []
        self._folder, self._converter = folder, converter

    def write(self, graph: str, precision: str, proto: onnx.ModelProto) -> None:
        """Write `graph` in `precision`, unless its file is there for another precision."""
        path = self._folder / graph_file(graph, precision)
        if not path.exists():
            proto = self._converter.convert(graph, proto, PRECISIONS[precision].stored)
            write(path, proto.SerializeToString(deterministic=True))
        size, nodes = path.stat().st_size, len(proto.graph.node)
        self.graphs.append(GraphReport(graph, precision, path.name, size, nodes, OPSET))


def _write_manifest(folder: Path, model: Galip, graphs: list[GraphReport], source: Source) -> Manifest:
    """Write the vocabulary and the manifest of a bundle without `parity.json`."""
    text, sizes = model.config.clip.text, dimensions(model.config)
    write(folder / _TOKENIZER_NAME, clip_tokenizer(text.merges, text.context_length).to_bytes())
    specs: dict[str, dict[str, GraphSpec]] = {graph: {} for graph in GRAPHS}
    for entry in graphs:
        specs[entry.graph][entry.precision] = GraphSpec(
            entry.file, *graph_contract(sizes, entry.graph), opset=entry.opset
        )
    manifest = Manifest(
        model=model.config.to_dict(),
        dimensions=sizes,
        files={
            name: describe_file(folder / name)
            for name in dict.fromkeys([*(entry.file for entry in graphs), _TOKENIZER_NAME])
        },
        graphs=specs,
        tokenizer=TokenizerSpec(_TOKENIZER_NAME, text.merges, text.context_length),
        source=source,
        versions=_versions(),
    )
    write(folder / MANIFEST_NAME, manifest.to_json().encode())
    return manifest


def _write_parity(
    folder: Path,
    manifest: Manifest,
    parity: tuple[GraphParity, ...],
    pictures: tuple[PictureParity, ...],
    rewrites: str,
    chosen: Mapping[str, Any],
) -> None:
    """Write `parity.json`, and the manifest with it."""
    precisions = dict.fromkeys(case.precision for case in parity)
    content = {
        "rewrites": rewrites,
        "reference": f"eager PyTorch {torch.__version__}, float32, CPU",
        "gates": {
            name: {"relative": PRECISIONS[name].relative, "psnr_db": PRECISIONS[name].psnr_db}
            for name in precisions
        },
        "psnr_of_cases": "dB, against the range of what eager PyTorch gives",
        "cases": [case.to_dict() for case in parity],
        "psnr_of_pictures": "dB, of pictures clamped to [-1, 1] and not rounded, against a range of 2",
        "pictures": [asdict(each) for each in pictures],
        **chosen,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write(folder / PARITY_NAME, text.encode())
    files = {**manifest.files, PARITY_NAME: describe_file(folder / PARITY_NAME)}
    write(folder / MANIFEST_NAME, replace(manifest, files=files).to_json().encode())


def _versions() -> dict[str, str]:
    """Of all that made or verified the bundle; onnxruntime's distribution has several names."""
    if has_openvino():
        import_openvino()
    distributions = ("galip", "galip-runtime", "torch", "onnx", "onnxscript", "numpy", "open_clip_torch")
    return {
        **{name: version(name) for name in distributions},
        **backend_versions(),
        "python": platform.python_version(),
    }
