"""`galip export`, `galip convert` and `galip info`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from galip_export.precisions import describe_precisions
from galip_runtime.errors import FileRefused, UsageError

from galip.cli.common import Json, Progress, emit

if TYPE_CHECKING:
    from galip_export import ExportReport
    from galip_runtime.backends.engines import EngineRecord
    from galip_runtime.bundle.manifest import Manifest

__all__ = ["convert", "export", "info"]

_BATCHES = "1,4,16"
_NO_DIGEST = (
    "none: the bundle was exported before manifests had one, so some changes of it would go unnoticed"
)


def export(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint (.safetensors), the shipped model if not given; or a bundle, for engines.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make: the bundle.")] = ...,  # type: ignore[assignment]
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"Precisions, separated by commas: {describe_precisions()}. fp32 if not given, with --trt "
            "fp32,fp16.",
            show_default=False,
        ),
    ] = None,
    rewrites: Annotated[
        str,
        typer.Option(
            help="exact: the generator computes the same with less work; none: as in the checkpoint."
        ),
    ] = "exact",
    trt: Annotated[bool, typer.Option("--trt", help="Build TensorRT engines, too.")] = False,
    trt_batch: Annotated[
        str, typer.Option(help="Batch sizes that engines are fastest for; the largest is the most they take.")
    ] = _BATCHES,
    trt_arch: Annotated[
        str | None,
        typer.Option(
            help="GPUs that engines are for, such as sm86,sm89 (TensorRT for RTX); else this machine's.",
            show_default=False,
        ),
    ] = None,
    trt_refit: Annotated[
        bool, typer.Option("--trt-refit", help="Engines whose weights can be replaced.")
    ] = False,
    trt_compatible: Annotated[
        bool, typer.Option("--trt-compatible", help="Engines that later minor versions of TensorRT run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle at --out.")] = False,
    json: Json = False,
) -> None:
    """Turn a checkpoint into a verified bundle of ONNX graphs, and TensorRT engines with --trt.

    Every export is compared with eager PyTorch on several prompts, seeds and batch sizes, each precision but
    fp32 on 256 pictures, too. A bundle that is farther from the model than its precisions allow is not
    written, nor is one with engines that should be in fp16 and are not (exit code 3).
    """
    from galip_export import export_bundle
    from galip_export.engines import add_engines
    from galip_export.tensorrt_builder import build_options

    from galip.assets import default_checkpoint

    options = build_options(trt_batch, trt_arch, trt_refit, trt_compatible)
    if not trt and options != build_options(_BATCHES):
        raise UsageError(
            "--trt-batch, --trt-arch, --trt-refit and --trt-compatible are for engines: add --trt"
        )
    with Progress() as progress:
        if model is not None and model.is_dir():
            if not trt or precision is not None or rewrites != "exact":
                raise UsageError(
                    f"{model} is a bundle: of that, --trt builds engines, in the precision that it has. For "
                    "anything else name the checkpoint"
                )
            records = add_engines(model, out, options, overwrite=overwrite, progress=progress)
            emit(
                {"bundle": str(out), "engines": [dataclasses.asdict(each) for each in records]},
                json,
                f"{out}: engines built",
                *map(_engine, records),
                is_report=True,
            )
            return
        report = export_bundle(
            model or default_checkpoint(),
            out,
            precisions=_named(precision or ("fp32,fp16" if trt else "fp32")),
            rewrites=rewrites,
            engines=options if trt else None,
            overwrite=overwrite,
            progress=progress,
        )
    emit(report.to_dict(), json, *_summary(report), is_report=True)


def _named(precisions: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in precisions.split(","))


def convert(
    released: Annotated[Path, typer.Argument(help="Released GALIP checkpoint (.pth).")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write (.safetensors).")],
    clip: Annotated[
        str | None,
        typer.Option(
            help="CLIP ViT-B/32's weights: a state-dict file, or an open_clip tag "
            "such as openai or MODEL:TAG.",
            show_default=False,
        ),
    ] = None,
    allow_missing_text: Annotated[
        bool,
        typer.Option(
            "--allow-missing-text", help="Without --clip: convert the generator and discriminator alone."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Turn a released GALIP checkpoint into one of ours."""
    from galip.checkpoint import read_info
    from galip.convert import convert_released

    with Progress() as progress:
        progress("reading and converting", 0, 1)
        convert_released(released, out, clip=clip, allow_missing_text=allow_missing_text)
    parts = read_info(out).parts
    emit({"checkpoint": str(out), "parts": parts}, json, f"{out}: {', '.join(parts)}", is_report=True)


def info(
    path: Annotated[Path, typer.Argument(help="A bundle folder or a checkpoint.")],
    json: Json = False,
) -> None:
    """Say what a bundle or checkpoint is, and where it came from."""
    is_bundle = (
        os.path.isdir(path) or path.name == "manifest.json"
    )  # of which `read_manifest` says what to name
    found = _bundle_info(path) if is_bundle else _checkpoint_info(path)
    shown = {**found, "digest": found["digest"] or _NO_DIGEST} if "digest" in found else found
    emit(found, json, *_lines(shown))


def _summary(report: ExportReport) -> list[str]:
    """The bundle, then a line a graph with its worst case against eager PyTorch."""
    lines = [f"{report.bundle}: exported and verified in {report.seconds:.0f} s"]
    for graph in report.graphs:
        worst = report.worst(graph.graph, graph.precision).comparison
        psnr = "equal" if worst.psnr_db is None else f"{worst.psnr_db:.0f} dB"
        shown = graph.file if graph.precision != "bf16" else f"{graph.file} in bf16"
        lines.append(
            f"  {shown}: {graph.size / 2**20:.1f} MiB, {graph.nodes} nodes, opset {graph.opset}; "
            f"at worst {worst.max_abs:.1e} from eager PyTorch ({worst.relative:.1e} of its std, {psnr})"
        )
    for each in report.pictures:
        lines.append(
            f"  {each.precision} on {each.device}: PSNR of {each.pictures} pictures at least "
            f"{each.psnr_min:.1f} dB, first percentile {each.psnr_p1:.1f}, median {each.psnr_median:.1f}"
        )
    return [*lines, *map(_engine, report.engines)]


def _engine(record: EngineRecord) -> str:
    half, total = record.weights.get("fp16", 0), max(1, sum(record.weights.values()))
    sizes = ", ".join(str(profile.opt) for profile in record.profiles)
    return (
        f"  {record.plan}: {record.package} {record.package_version}, batches {sizes}; {half / total:.0%} of "
        f"its weights in fp16 (counted in the {record.inspected})"
    )


def _bundle_info(path: Path) -> dict[str, Any]:
    from galip_runtime.backends.engines import read_records
    from galip_runtime.bundle.manifest import read_manifest, verify_files

    manifest = read_manifest(path)
    verify_files(path, manifest)
    engines = {each.plan: _engine_facts(each, manifest) for each in read_records(path, manifest)}
    facts = dataclasses.asdict(manifest)
    return {"kind": "bundle", **facts, "engines": engines, "parity": _worst_parity(path, manifest)}


def _engine_facts(record: EngineRecord, manifest: Manifest) -> dict[str, Any]:
    facts = dataclasses.asdict(record)
    kept = {key: facts[key] for key in facts if key not in ("plan", "profiles")}
    spec = manifest.graphs.get(record.graph, {}).get(record.precision)
    fits = spec is not None and manifest.files[spec.file].sha256 == record.onnx_sha256
    return {**kept, "batches": [profile.opt for profile in record.profiles], "fits_graph": fits}


@dataclasses.dataclass(frozen=True)
class _Case:
    """What is shown of a case of `parity.json`."""

    graph: str
    precision: str
    device: str
    max_abs: float
    relative: float
    psnr_db: float | None
    batch: int


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """What is shown of the pictures of a precision in `parity.json`."""

    precision: str
    device: str
    pictures: int
    psnr_min: float | None
    psnr_p1: float | None
    psnr_median: float | None


@dataclasses.dataclass(frozen=True)
class _Parity:
    """What is shown of `parity.json`."""

    cases: tuple[_Case, ...]
    pictures: tuple[_Pictures, ...]


def _worst_parity(path: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What a bundle's `parity.json` says of each graph, precision and device: its case furthest from eager
    PyTorch, or its pictures. Raises FileRefused if it is none.
    """
    from galip_runtime.bundle.decoding import parse, typed
    from galip_runtime.bundle.manifest import read_verified

    if "parity.json" not in manifest.files:
        return {}
    data = read_verified(path, manifest, "parity.json")
    try:
        document = parse(data)
        parity = typed(
            _Parity, {"cases": [], "pictures": [], **document} if isinstance(document, dict) else document
        )
    except FileRefused as error:
        raise FileRefused(f"{path / 'parity.json'} is refused: {error}") from error
    worst: dict[str, dict[str, Any]] = {}
    for case in sorted(parity.cases, key=lambda case: case.relative):
        figures = {name: getattr(case, name) for name in ("max_abs", "relative", "psnr_db", "batch")}
        worst[f"{case.graph} {case.precision} on {case.device}"] = figures
    for pictures in parity.pictures:
        figures = {
            name: getattr(pictures, name) for name in ("pictures", "psnr_min", "psnr_p1", "psnr_median")
        }
        worst[f"pictures {pictures.precision} on {pictures.device}"] = figures
    return worst


def _checkpoint_info(path: Path) -> dict[str, Any]:
    from galip.checkpoint import read_info

    found = read_info(path)
    numbers: dict[str, int] = {}
    for name, shape in found.shapes.items():
        part = (
            name.partition(".")[0]
            if found.kind == "galip"
            else ("image" if name.startswith("visual.") else "text")
        )
        count = 1
        for side in shape:
            count *= side
        numbers[part] = numbers.get(part, 0) + count
    return {
        "kind": f"{found.kind} checkpoint",
        "bytes": path.stat().st_size,
        "parts": list(found.parts),
        "parameters": numbers,
        "dtypes": list(found.dtypes),
        "config": dataclasses.asdict(found.config),
        "note": found.note,
    }


def _lines(value: Any, indent: int = 0) -> list[str]:
    """Nested dicts as indented lines."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{'  ' * indent}{key}:", *_lines(item, indent + 1)]
        else:
            shown = ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else item
            lines.append(f"{'  ' * indent}{key}: {shown}")
    return lines
