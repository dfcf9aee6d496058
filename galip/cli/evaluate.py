"""`galip evaluate`."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from galip.cli.options import Device, Inception, Json, Precision, Ray, Threads
from galip.cli.output import ProgressBar, emit
from galip.data.layouts import LAYOUTS
from galip.metrics.registry import METRICS

__all__ = ["evaluate"]


def evaluate(
    subject: Annotated[
        Path, typer.Argument(help="A checkpoint, a bundle, or a folder of pictures.", show_default=False)
    ],
    against: Annotated[
        Path,
        typer.Option(
            help="Reference: a data set, a folder of pictures, or an .npz with mu and sigma.",
            show_default=False,
        ),
    ],
    metrics: Annotated[
        str,
        typer.Option(help=f"Comma-separated: {', '.join(name + row.note for name, row in METRICS.items())}."),
    ] = "fid,clip_score",
    count: Annotated[
        int | None,
        typer.Option(
            help="Pictures of the subject. Default: 10,000 of a model, all of a folder.", show_default=False
        ),
    ] = None,
    reference_count: Annotated[
        int | None, typer.Option(help="Pictures of the reference. Default: all.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the reference.")] = "train",
    layout: Annotated[
        str, typer.Option(help=f"Layout of the reference: auto, {', '.join(LAYOUTS)}.")
    ] = "auto",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out pictures of the reference, as in galip train --exclude.", show_default=False
        ),
    ] = None,
    captions: Annotated[
        str,
        typer.Option(
            help="Text file of captions to generate from, one per line. Default: the reference's captions."
        ),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option(help="clean, or released: resize and rescale as GALIP's released test code does."),
    ] = "clean",
    size: Annotated[
        int | None,
        typer.Option(
            help="Side to resize stored pictures to, in pixels. Default: the model's.", show_default=False
        ),
    ] = None,
    clip: Annotated[
        str,
        typer.Option(
            help="CLIP that scores: a file, a folder, MODEL:TAG, or default (the shipped towers). If none is "
            "named, the checkpoint's own."
        ),
    ] = "",
    inception: Inception = "",
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.")] = 32,
    seed: Annotated[int, typer.Option(help="First seed; picture i has seed S + i.")] = 0,
    save_statistics: Annotated[str, typer.Option(help="Write the subject's mu and sigma to this .npz.")] = "",
    cache: Annotated[bool, typer.Option(help="Keep the reference's features on disk.")] = True,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    ray: Ray = "",
    json: Json = False,
) -> None:
    """Measure FID, KID, precision and recall, CLIP score, and retrieval.

    On several GPUs: torchrun --nproc-per-node GPUS -m galip evaluate ... On a cluster: --ray ADDRESS.
    """
    options = locals()
    from galip.early_checks import check_evaluation
    from galip.metrics.config import EvaluationConfig, parse_metrics

    values: dict[str, Any] = {field.name: options[field.name] for field in fields(EvaluationConfig)}
    values |= {"subject": str(subject), "against": str(against)}
    values |= {"metrics": parse_metrics(metrics), "exclude": tuple(exclude or ())}
    config = EvaluationConfig(**values)
    check_evaluation(config)
    from galip.metrics import evaluate
    from galip.metrics.report import format_report

    fabric = None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from galip.train.fabric import make_fabric

        fabric = make_fabric(device if device in ("cpu", "cuda") else "auto", "fp32")
    with ProgressBar() as progress:
        report = evaluate(config, fabric=fabric, progress=progress)
    if fabric is None or fabric.is_global_zero:
        emit(asdict(report), json, *format_report(report))
