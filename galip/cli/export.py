"""`galip export`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from galip_export.precisions import INT8_PSNR, describe_precisions, with_int8_psnr
from galip_export.rewrite_names import check_rewrites
from galip_runtime import console
from galip_runtime.errors import UsageError

from galip.cli.options import Json
from galip.cli.output import ProgressBar, emit

if TYPE_CHECKING:
    from galip_export import BuildOptions, ExportReport
    from galip_runtime.backends.engines import EngineRecord

__all__ = ["export"]

_BATCHES = "1,4,16"


def export(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint (.safetensors), or a bundle to build engines for. Default: the shipped model.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to create: the bundle.", show_default=False)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"Precisions, separated by commas: {describe_precisions()}; all: those that this machine "
            "can verify. Default: fp32; with --trt fp32,fp16; with --web w16a32.",
            show_default=False,
        ),
    ] = None,
    rewrites: Annotated[
        str,
        typer.Option(
            callback=check_rewrites,
            help="exact: rewrite the generator to compute the same with less work; none: leave it as it is "
            "in the checkpoint.",
        ),
    ] = "exact",
    int8_psnr: Annotated[
        float | None,
        typer.Option(
            help="PSNR in dB that int8 has to keep, as the first percentile over many pictures. More leaves "
            f"more layers in float. Default: {INT8_PSNR:g}.",
            show_default=False,
        ),
    ] = None,
    trt: Annotated[bool, typer.Option("--trt", help="Build TensorRT engines, too.")] = False,
    trt_batch: Annotated[
        str,
        typer.Option(help="Batch sizes to optimise the engines for; they accept no batch above the largest."),
    ] = _BATCHES,
    trt_arch: Annotated[
        str | None,
        typer.Option(
            help="GPU architectures to build for, such as sm86,sm89 (TensorRT for RTX). Default: this "
            "machine's.",
            show_default=False,
        ),
    ] = None,
    trt_refit: Annotated[
        bool, typer.Option("--trt-refit", help="Build engines whose weights can be replaced.")
    ] = False,
    trt_compatible: Annotated[
        bool,
        typer.Option("--trt-compatible", help="Build engines that later minor versions of TensorRT can run."),
    ] = False,
    web: Annotated[
        Path | None,
        typer.Option(
            help="Folder to create: a page that draws in the browser, with the bundle in it, for any file "
            "server. Without --out, MODEL may be a bundle as it is; default: the shipped one.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle at --out and the page at --web.")
    ] = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to a verified bundle of ONNX graphs, and TensorRT engines with --trt.

    --web writes a page with the bundle in it.

    Every export is compared with eager PyTorch on several prompts, seeds and batch sizes; each precision
    other than fp32 also on 256 pictures. Where fp16, bf16 or int8 is farther from the model than it may be,
    the bundle is written without it. Nothing is written (exit code 3) if no other precision was asked for, if
    fp32 or w16a32 is too far, or if engines that should be in fp16 are not.
    """
    from galip_export.tensorrt_builder import build_options

    options = build_options(trt_batch, trt_arch, trt_refit, trt_compatible)
    if not trt and options != build_options(_BATCHES):
        raise UsageError(
            "--trt-batch, --trt-arch, --trt-refit and --trt-compatible are for engines: add --trt"
        )
    is_bundle = model is not None and model.is_dir()
    if web is not None:
        from galip_export.web import check_site

        check_site(web, overwrite=overwrite)
    if out is None:
        is_checkpoint = model is not None and not is_bundle
        options_given = trt or precision is not None or int8_psnr is not None or rewrites != "exact"
        if web is None or options_given or is_checkpoint:
            raise UsageError(
                "name the folder to create for the bundle, --out; --web alone makes a page of a bundle that "
                "there is"
            )
        _write_page(model, web, overwrite, json)
        return
    if model is not None and is_bundle:
        if not trt or precision is not None or int8_psnr is not None or rewrites != "exact":
            raise UsageError(
                f"{model} is a bundle. For a bundle --trt builds engines, in the precision that it has, and "
                "--web without --out makes a page of it; for anything else give the checkpoint"
            )
        _add_engines(model, out, options, overwrite, json)
        return
    from galip.assets import default_checkpoint

    checkpoint = default_checkpoint() if model is None else model
    standard = "fp32,fp16" if trt else "fp32" if web is None else "w16a32"
    precisions = _precisions(precision or standard)
    with_int8_psnr(int8_psnr, precisions)
    _check_early(checkpoint, out, overwrite)
    if trt:
        from galip_export.engines import engine_builder

        engine_builder(options, out, precisions)
    from galip_export import export_bundle

    with ProgressBar(shows_time_left=True) as progress:
        report = export_bundle(
            checkpoint,
            out,
            precisions=precisions,
            rewrites=rewrites,
            int8_psnr=int8_psnr,
            engines=options if trt else None,
            overwrite=overwrite,
            progress=progress,
        )
    lines = _report_lines(report)
    if web is not None:
        from galip_export.web import write_site

        lines.append(_page_line(web, write_site(out, web, overwrite=overwrite)))
    emit(report.to_dict(), json, *lines, is_report=True)


def _write_page(bundle: Path | None, web: Path, overwrite: bool, json: bool) -> None:
    """Write a page with `bundle`, None for the shipped one, to the folder `web`. Raises as `write_site`."""
    from galip_export.web import write_site

    from galip.assets import default_bundle

    size = write_site(bundle or default_bundle(), web, overwrite=overwrite)
    emit({"web": str(web), "bytes": size}, json, _page_line(web, size), is_report=True)


def _page_line(web: Path, size: int) -> str:
    return f"{web}: page and bundle, {size / 1e6:.0f} MB, for any file server (https or localhost)"


def _add_engines(bundle: Path, out: Path, options: BuildOptions, overwrite: bool, json: bool) -> None:
    from galip_export.engines import add_engines

    with ProgressBar() as progress:
        records = add_engines(bundle, out, options, overwrite=overwrite, progress=progress)
    emit(
        {"bundle": str(out), "engines": [dataclasses.asdict(record) for record in records]},
        json,
        f"{out}: engines built",
        *map(_engine_line, records),
        is_report=True,
    )


def _check_early(checkpoint: Path, out: Path, overwrite: bool) -> None:
    """Raise `FileRefused` and `UsageError`, before PyTorch is imported, for paths that cannot be used."""
    from galip_export.staging import check_target

    from galip.checkpoint_info import read_galip_info
    from galip.early_checks import check_folder

    read_galip_info(checkpoint, needs=("text", "generator"))
    target = Path(os.path.abspath(out))
    check_target(target, overwrite)
    if not target.is_dir():
        check_folder(target)


def _precisions(text: str) -> tuple[str, ...]:
    """Return the precisions that --precision names. Says on stderr which ones `all` leaves out, and why.

    Needs no PyTorch, so that what cannot be exported is refused at once. Raises as `choose_precisions`.
    """
    from galip_export.devices import ALL, choose_precisions, why_not_verifiable
    from galip_export.precisions import PRECISIONS

    names = [name.strip() for name in text.split(",")]
    chosen = choose_precisions(names)
    if ALL in names:
        console.message(f"precisions: {', '.join(chosen)}")
        for name in PRECISIONS:
            if name not in chosen:
                console.message(f"without {name}: {why_not_verifiable(name)}")
    return chosen


def _report_lines(report: ExportReport) -> list[str]:
    """Return lines for the bundle, each graph with its worst case, the pictures and the engines."""
    lines = [f"{report.bundle}: exported and verified in {report.seconds:.0f} s"]
    for graph in report.graphs:
        worst = report.worst(graph.graph, graph.precision).comparison
        psnr = "equal" if worst.psnr_db is None else f"{worst.psnr_db:.0f} dB"
        file = graph.file if graph.precision != "bf16" else f"{graph.file} in bf16"
        lines.append(
            f"  {file}: {graph.size / 2**20:.1f} MiB, {graph.nodes} nodes, opset {graph.opset}; "
            f"at worst {worst.max_abs:.1e} from eager PyTorch ({worst.relative:.1e} of its std, {psnr})"
        )
    for row in report.pictures:
        lines.append(
            f"  {row.precision} on {row.device}: PSNR of {row.pictures} pictures at least "
            f"{row.psnr_min:.1f} dB, first percentile {row.psnr_p1:.1f}, median {row.psnr_median:.1f}"
        )
    if int8 := report.calibrated.get("int8"):
        curve = ", ".join(
            f"{point['share']:.1%} {point['measured_db']:.1f} dB"
            for point in int8["curve"]
            if point["measured_db"] is not None
        )
        lines.append(
            f"  int8 is {int8['share']:.1%} of the multiply-adds, for {int8['goal_db']:g} dB and a margin; "
            f"calibration measured: {curve}"
        )
    lines += [f"  without {name}: {reason}" for name, reason in report.left_out.items()]
    return [*lines, *map(_engine_line, report.engines)]


def _engine_line(record: EngineRecord) -> str:
    half, total = record.weights.get("fp16", 0), max(1, sum(record.weights.values()))
    sizes = ", ".join(str(profile.opt) for profile in record.profiles)
    return (
        f"  {record.plan}: {record.package} {record.package_version}, batches {sizes}; {half / total:.0%} of "
        f"its weights in fp16 (counted in the {record.inspected})"
    )
