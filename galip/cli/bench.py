"""`galip bench`."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from galip_runtime import console
from galip_runtime.errors import QualityGateFailed, UsageError

from galip.cli.options import Inception, Threads
from galip.cli.output import ProgressBar

if TYPE_CHECKING:
    from galip_bench.config import BenchConfig

__all__ = ["bench"]


def bench(
    bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE",
            help="Bundle folder. Default: the shipped model's, in w16a32; with --model, an export of it.",
            show_default=False,
        ),
    ] = "",
    plain_bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE",
            help="A bundle exported with --rewrites none, to measure beside it.",
            show_default=False,
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint to run in eager PyTorch. Default: the shipped one.",
            show_default=False,
        ),
    ] = "",
    subjects: Annotated[
        str,
        typer.Option(metavar="A,B", help="Subjects to measure beside eager-fp32. Default: all."),
    ] = "",
    batch: Annotated[str, typer.Option(metavar="1,4,8", help="Batch sizes.")] = "1,4,8",
    threads: Threads = None,
    launches: Annotated[int, typer.Option(help="Fresh processes to divide the rounds among.")] = 3,
    rounds: Annotated[
        int, typer.Option(help="Rounds; in each, every subject generates each batch once.")
    ] = 51,
    warmup: Annotated[int, typer.Option(help="Rounds per process before those, not counted.")] = 2,
    max_minutes: Annotated[
        float,
        typer.Option(help="Minutes for the whole run, except FID. Whatever does not fit is left out."),
    ] = 10.0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Two minutes: one picture at a time, fewer rounds, pictures and processes. Options that you "
            "give count.",
        ),
    ] = False,
    cold_starts: Annotated[
        int, typer.Option(help="Fresh processes per subject, for cold start and memory; 0: none.")
    ] = 2,
    pictures: Annotated[int, typer.Option(help="Pictures to compare with eager-fp32's; 0: none.")] = 100,
    fid: Annotated[
        int, typer.Option(metavar="N", help="Pictures of each subject for FID; 0: none. Takes long.")
    ] = 0,
    against: Annotated[
        str,
        typer.Option(
            help="Reference for FID: a data set, a folder of pictures, or an .npz with mu and sigma.",
            show_default=False,
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of --against.")] = "train",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out pictures of --against, as in galip train --exclude.", show_default=False
        ),
    ] = None,
    captions: Annotated[
        str,
        typer.Option(
            help="Text file of captions for FID, one per line. Default: those of --against, or our own."
        ),
    ] = "",
    inception: Inception = "",
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    worst: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write each subject's worst picture there, beside eager-fp32's and the difference.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write everything, with raw samples.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write tables and plots as one HTML page.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.", show_default=False)
    ] = None,
    repeat: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULT.json",
            help="Measure as that result did; options that say what to measure are ignored.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="OLD.json NEW.json",
            help="Measure nothing; report what changed. Exit code 3 if a subject is slower.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Fraction by which a subject may be slower in --compare.")
    ] = 0.05,
) -> int | None:
    """Measure latency, cold start, memory, parity and FID of eager PyTorch and the bundle on this machine.

    The subjects take turns, round by round. Times are from prompt to PNG in memory. SIGTERM ends the run with
    a report of what it has measured, and exit code 130.
    """
    options = locals()
    if compare is not None:
        _compare(*compare, tolerance)
        return None
    from galip_bench.config import QUICK, BenchConfig
    from galip_bench.report import read_report
    from galip_bench.schedule import Schedule, Stop

    _check_targets(worst, json, html, markdown)
    if repeat is None:
        values: dict[str, Any] = {field.name: options[field.name] for field in fields(BenchConfig)}
        names = tuple(name.strip() for name in subjects.split(",") if name.strip())
        values |= {"subjects": names, "batch": _batch_sizes(batch), "exclude": tuple(exclude or ())}
        if quick:
            defaults = {field.name: field.default for field in fields(BenchConfig)}
            values |= {name: value for name, value in QUICK.items() if values[name] == defaults[name]}
        config, before = BenchConfig(**values), None
    else:
        before = read_report(repeat)
        config = before.config
    _check_early(config)
    from galip_bench.benchmark import run

    schedule = Schedule(config.max_minutes)
    with Stop() as stop:
        with ProgressBar(schedule) as progress:
            report = run(config, pictures=worst, progress=progress, schedule=schedule, stop=stop)
        if before is not None and report.models != before.models:
            report.warnings.append(f"checkpoint or bundle is not the same as when {repeat} was measured")
        _write(report, json, html, markdown)
    if broken := report.not_finite():
        raise QualityGateFailed(f"NaN or infinity in pictures of {', '.join(broken)}")
    return 130 if stop.requested else None


def _check_targets(worst: Path | None, *files: Path | None) -> None:
    """Raise UsageError, before minutes of work, if a file cannot be written."""
    from galip_runtime.files import check_writable

    if worst is not None:
        if worst.exists() and not worst.is_dir():
            raise UsageError(f"{worst} is a file; name a folder for --worst")
        files = (*files, worst / "x.png" if worst.is_dir() else worst)
    for file in files:
        if file is not None:
            check_writable(file)


def _check_early(config: BenchConfig) -> None:
    """Raise `FileRefused`, `UsageError` or `ProviderUnavailable`, before PyTorch is imported, for a path, a
    subject or a condition that cannot be used.
    """
    from galip_bench.subjects import check_subjects
    from galip_runtime.bundle.manifest import read_manifest
    from galip_runtime.files import open_regular

    from galip.checkpoint_info import read_galip_info
    from galip.data.conditions import check_conditions
    from galip.data.texts import read_captions
    from galip.early_checks import check_reference

    for bundle in filter(None, (config.bundle, config.plain_bundle)):
        read_manifest(Path(bundle))
    if config.model:
        if not Path(config.model).is_file():
            raise UsageError(
                f"there is no file {config.model}; name a checkpoint of galip (galip convert makes one)"
            )
        read_galip_info(Path(config.model), needs=("text", "generator"))
    if config.against:
        check_reference(Path(config.against), split=config.split)
    check_conditions(config.exclude)
    if config.captions:
        read_captions(Path(config.captions))
    if config.inception:
        open_regular(config.inception).close()
    check_subjects(config)


def _write(report: Any, json: Path | None, html: Path | None, markdown: Path | None) -> None:
    from galip_bench.html_report import html_report
    from galip_bench.markdown_report import markdown_report
    from galip_bench.terminal_report import terminal_report
    from galip_runtime.files import write_atomically
    from rich.console import Console

    if json or html or markdown:
        console.report()  # what is printed is in a file, too
    Console(width=None if Console().is_terminal else 120).print(terminal_report(report))
    if json is not None:
        write_atomically(json, report.to_json().encode())
    if html is not None:
        write_atomically(html, html_report(report).encode())
    if markdown is not None:
        write_atomically(markdown, markdown_report(report).encode())


def _batch_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batch is {text!r}; give numbers separated by commas, such as 1,4,8") from error


def _compare(old: Path, new: Path, tolerance: float) -> None:
    """Print how `new` differs from `old`. Raises QualityGateFailed if a subject is slower."""
    from galip_bench.compare import compare, differences, lost, other_changes
    from galip_bench.report import read_report

    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance is {tolerance}; give a fraction of at least 0, such as 0.05")
    reports = read_report(old), read_report(new)
    worse, lines = lost(*reports), []
    for change in compare(*reports):
        low, high = change.interval_95
        verdict = "slower" if change.is_slower(tolerance) else "faster" if change.is_faster(tolerance) else ""
        figures = f"{change.change:6.3f} ({low:.3f}–{high:.3f})"
        lines.append(f"{change.subject:24} batch {change.batch:<3} {figures}  {verdict}".rstrip())
        if verdict == "slower":
            worse.append(f"{change.subject} at batch {change.batch} is slower by {change.change - 1:.0%}")
    for file, report in zip((old, new), reports, strict=True):
        for reason in report.noise.reasons:
            lines.append(f"{file} is of a noisy machine: {reason}")
    lines += other_changes(*reports)
    lines += [f"not the same: {line}" for line in differences(*reports)]
    console.result(*lines)
    if worse:
        raise QualityGateFailed(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}")
