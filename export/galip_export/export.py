"""Export: a checkpoint to a bundle that is proved equal to the model."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
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

from galip.checkpoint import CheckpointInfo, load_galip, read_info
from galip.clip import clip_tokenizer
from galip.model import Galip
from galip.progress import Progress, no_progress
from galip_export.devices import choose_precisions
from galip_export.engines import build_engines, check_engine_precision, engine_builder
from galip_export.graph_writer import GraphReport, GraphWriter
from galip_export.parity import GraphParity, PictureParity, verify_bundle
from galip_export.precisions import PRECISIONS, Precision, with_int8_psnr
from galip_export.progress import Stage
from galip_export.rewrites import check_rewrites
from galip_export.staging import staged_bundle, write
from galip_export.tensorrt_builder import BuildOptions
from galip_export.trace import dimensions, export_generator, export_text_encoder

__all__ = ["ExportReport", "GraphReport", "export_bundle"]

PARITY_NAME = "parity.json"
_TOKENIZER_NAME = "merges.txt.gz"
_SMALL_FILES = 16 * 2**20  # bytes: vocabulary, manifest, the graphs without their weights


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and measured."""

    bundle: Path
    checkpoint: Path
    graphs: tuple[GraphReport, ...]
    parity: tuple[GraphParity, ...]
    pictures: tuple[PictureParity, ...]
    engines: tuple[EngineRecord, ...]
    seconds: float
    calibrated: Mapping[str, Any]
    """what calibration chose, by precision; plain JSON types, as in `parity.json`"""
    left_out: Mapping[str, str]
    """precisions that were asked for and that the model does not bear, with the reason"""

    def worst(self, graph: str, precision: str) -> GraphParity:
        """Return the case of `graph` in `precision` that is farthest from eager PyTorch, in its std."""
        cases = [case for case in self.parity if (case.graph, case.precision) == (graph, precision)]
        return max(cases, key=lambda case: case.comparison.relative)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "bundle": str(self.bundle),
            "checkpoint": str(self.checkpoint),
            "graphs": [
                {**asdict(graph), "parity": self.worst(graph.graph, graph.precision).to_dict()}
                for graph in self.graphs
            ],
            "pictures": [asdict(pictures) for pictures in self.pictures],
            "engines": [asdict(record) for record in self.engines],
            **self.calibrated,
            "left_out": dict(self.left_out),
            "seconds": self.seconds,
        }


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    precisions: Iterable[str] = ("fp32",),
    rewrites: str = "exact",
    int8_psnr: float | None = None,
    engines: BuildOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Export the GALIP `checkpoint` to the new folder `out`, verified against eager PyTorch.

    `out` appears whole at the end or not at all; with `overwrite` it replaces a bundle or an empty folder.
    `precisions` may be `all`: those that can be verified on this machine.
    `rewrites`: `exact`, the generator computes the same with less work; `none`, it is as in the checkpoint.
    `int8_psnr`: dB that int8 keeps as the first percentile of the pictures' PSNR, from 20 to 100; None: 38.
    `engines`: the TensorRT engines to build from the graphs in fp16, or in fp32 if fp16 is not exported.
    The same checkpoint gives the same graphs, byte for byte; in int8 on the same kind of machine.
    `progress(stage, done, total)` is called as each stage begins and goes on.

    Not every model bears fp16, bf16 and int8. Where pictures in one of them are farther from the model's than
    it allows, the bundle is written without it, and the report says so: `ExportReport.left_out`.

    Raises UsageError for an unknown precision or rewrites, an `int8_psnr` that is out of range or without
    int8, and an `out` that cannot be written, FileRefused for a checkpoint that is broken or has no text
    tower, QualityGateFailed where nothing is left to write, where fp32 or w16a32 are too far from the model,
    and where an engine is not in fp16 or the graph that it is built from is left out, ProviderUnavailable
    where nothing here computes in a precision or builds engines.
    """
    started, report = time.perf_counter(), progress or no_progress
    names = choose_precisions(precisions)
    check_rewrites(rewrites)
    gates = with_int8_psnr(int8_psnr, names)
    builder = engine_builder(engines, out, names) if engines else None
    info = read_info(checkpoint)
    stored = {PRECISIONS[name].stored for name in names}
    size = sum(round(_fp32_size(info) * PRECISIONS[name].size) for name in stored)
    with staged_bundle(out, overwrite=overwrite, size=size) as folder:
        Stage(report, "reading the checkpoint")
        model = load_galip(checkpoint, needs=("text", "generator"))
        del model.image, model.discriminator  # not exported: memory for what is
        Stage(report, "exporting the text encoder")
        encoder = export_text_encoder(model)
        Stage(report, "exporting the generator")
        generator = export_generator(model, rewrites)
        left_out: dict[str, str] = {}
        writer = GraphWriter(folder, model, gates, left_out, report)
        writer.write(names, encoder, generator)
        del encoder, generator  # as large as the model each
        source = Source(_printable(checkpoint.name), sha256_file(checkpoint))
        manifest = _write_manifest(folder, model, writer.graphs, source)
        written = [name for name in names if name not in left_out]
        parity, pictures = verify_bundle(folder, model, written, report, gates, left_out)
        if len(kept := [name for name in names if name not in left_out]) < len(written):
            writer.keep(kept)
            manifest = _write_manifest(folder, model, writer.graphs, source)
        records: tuple[EngineRecord, ...] = ()
        if builder:
            check_engine_precision(names, left_out)
            records, files = build_engines(folder, manifest, builder, report)
            manifest = replace(manifest, files={**manifest.files, **files})
        Stage(report, "finishing")
        options = {"rewrites": rewrites, "left_out": left_out}
        _write_parity(folder, manifest, parity, pictures, gates, {**options, **writer.chosen})
    Stage(report, "done").advance()
    seconds = time.perf_counter() - started
    return ExportReport(
        out, checkpoint, tuple(writer.graphs), parity, pictures, records, seconds, writer.chosen, left_out
    )


def _fp32_size(info: CheckpointInfo) -> int:
    """Return the bytes of a bundle in fp32."""
    shapes = {**info.shapes, **{name: info.shapes.get(stored, ()) for name, stored in info.aliases.items()}}
    numbers = sum(
        math.prod(shape) for name, shape in shapes.items() if name.startswith(("text.", "generator."))
    )
    return 4 * numbers + _SMALL_FILES


def _printable(name: str) -> str:
    """Return a file's name as Unicode text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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


def _versions() -> dict[str, str]:
    """Return the versions of what made or verified the bundle; onnxruntime's package has several names."""
    if has_openvino():
        import_openvino()
    distributions = (
        "galip",
        "galip-runtime",
        "torch",
        "onnx",
        "onnxscript",
        "onnxsim",
        "numpy",
        "open_clip_torch",
    )
    return {
        **{name: version(name) for name in distributions},
        **backend_versions(),
        "python": platform.python_version(),
    }


def _write_parity(
    folder: Path,
    manifest: Manifest,
    parity: tuple[GraphParity, ...],
    pictures: tuple[PictureParity, ...],
    gates: Mapping[str, Precision],
    more: Mapping[str, Any],
) -> None:
    """Write `parity.json`, and the manifest with it. `more`: what else it says; plain JSON types."""
    precisions = dict.fromkeys(case.precision for case in parity)
    content = {
        **more,
        "reference": f"eager PyTorch {torch.__version__}, float32, CPU",
        "gates": {
            name: {"relative": gates[name].relative, "psnr_db": gates[name].psnr_db} for name in precisions
        },
        "psnr_of_cases": "dB, against the range of what eager PyTorch gives",
        "cases": [case.to_dict() for case in parity],
        "psnr_of_pictures": "dB, of pictures clamped to [-1, 1] and not rounded, against a range of 2",
        "pictures": [asdict(results) for results in pictures],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write(folder / PARITY_NAME, text.encode())
    files = {**manifest.files, PARITY_NAME: describe_file(folder / PARITY_NAME)}
    write(folder / MANIFEST_NAME, replace(manifest, files=files).to_json().encode())
