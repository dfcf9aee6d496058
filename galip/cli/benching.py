"""`galip bench`: what pictures cost on this machine, and whether they are still the same."""

from __future__ import annotations

import contextlib
import json as jsons
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime.errors import QualityGateFailed, UsageError

from galip.cli.common import Bundle, Progress, Threads

__all__ = ["bench"]


def bench(
    bundle: Bundle = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint that eager PyTorch runs; the shipped one if not given. Without --bundle it is "
            "exported for the run.",
            show_default=False,
        ),
    ] = None,
    subjects: Annotated[
        str,
        typer.Option(metavar="A,B", help="What to measure beside eager-fp32, with commas; all if not given."),
    ] = "",
    batch: Annotated[str, typer.Option(metavar="1,4,8", help="Pictures made at once.")] = "1,4,8",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(help="Rounds; in each every subject makes each batch once.")] = 30,
    warmup: Annotated[int, typer.Option(help="Rounds before those, not counted.")] = 3,
    cold_starts: Annotated[
        int, typer.Option(help="Fresh processes a subject, for cold start and memory; 0: none.")
    ] = 3,
    pictures: Annotated[int, typer.Option(help="Pictures compared with eager-fp32's; 0: none.")] = 32,
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
            help="Measure as that result did; other options don't count.",
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
    """Latency, cold start, memory and parity, eager PyTorch against the bundle on this machine.

    Every subject makes pictures in turn, round by round; times are from prompt to PNG in memory.
    """
    if compare is not None:
        return _compare(*compare, tolerance)
    from galip_bench.bench import BenchConfig, from_json, run
    from galip_bench.compare import read_report
    from galip_bench.html import page
    from galip_bench.tables import markdown as as_markdown
    from galip_bench.tables import terminal
    from galip_runtime.image import write_atomically
    from rich.console import Console

    for file in (json, html, markdown):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"the folder of {file} does not exist; make it first or name another")
    sizes = _sizes(batch)
    with Progress() as progress, _model_and_bundle(model, bundle, progress) as (checkpoint, exported):
        config = BenchConfig(
            checkpoint=str(checkpoint),
            bundle=str(exported),
            subjects=tuple(name.strip() for name in subjects.split(",") if name.strip()),
            batch=sizes,
            threads=threads,
            rounds=rounds,
            warmup=warmup,
            cold_starts=cold_starts,
            pictures=pictures,
            seed=seed,
        )
        if repeat is not None:
            config = from_json(read_report(repeat))
        report = asdict(run(config, pictures=worst, progress=progress))
    if json is not None:
        write_atomically(json, (jsons.dumps(report, indent=1) + "\n").encode())
    if html is not None:
        write_atomically(html, page(report).encode())
    if markdown is not None:
        write_atomically(markdown, as_markdown(report).encode())
    Console(width=None if Console().is_terminal else 120).print(terminal(report))
    return None


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batch is {text!r}; numbers with commas are right, as 1,4,8") from error


@contextlib.contextmanager
def _model_and_bundle(model: Path | None, bundle: Path | None, progress: Any) -> Iterator[tuple[Path, Path]]:
    """What to run: a bundle of the shipped model lies in the cache, another's is made for the while."""
    from galip.assets import default_bundle, default_checkpoint

    if model is None:
        if bundle is not None:
            raise UsageError(
                f"give --model, too: the checkpoint that {bundle} was exported from, for eager PyTorch"
            )
        yield default_checkpoint(), default_bundle(progress)
    elif bundle is not None:
        yield model, bundle
    else:
        from galip_export import export_bundle

        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "bundle"
            export_bundle(model, made, progress=progress)
            yield model, made


def _compare(old: Path, new: Path, tolerance: float) -> None:
    from galip_bench.compare import compare, read_report

    changes = compare(read_report(old), read_report(new))
    slower = []
    for each in changes:
        low, high = each.interval_95
        verdict = "slower" if each.is_slower(tolerance) else "faster" if each.is_faster(tolerance) else ""
        print(f"{each.subject:24} batch {each.batch:<3} {each.change:6.3f} ({low:.3f}–{high:.3f})  {verdict}")
        if verdict == "slower":
            slower.append(f"{each.subject} at batch {each.batch} by {each.change - 1:.0%}")
    if slower:
        raise QualityGateFailed(f"slower by more than {tolerance:.0%}: {'; '.join(slower)}")
