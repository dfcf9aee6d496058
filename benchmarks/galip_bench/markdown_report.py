"""A report as Markdown: everything, or one small table for a README."""

from __future__ import annotations

from collections.abc import Sequence

from galip_bench.formatting import (
    NONE,
    cpu_seconds,
    format_decibels,
    format_mb,
    format_ms,
    peak_mb,
    pictures_of,
    stage_seconds,
)
from galip_bench.markdown import markdown_list, markdown_table, markdown_text
from galip_bench.notes import headlines, machine_line, notes, warnings
from galip_bench.report import Report, SubjectReport
from galip_bench.statistics import ratio_of
from galip_bench.subjects import RELEASED
from galip_bench.tables import fid_table, tables

__all__ = ["fid_summary", "latency_summary", "markdown_report"]


def markdown_report(report: Report) -> str:
    """Return everything as Markdown."""
    parts = [markdown_list([*warnings(report), *headlines(report)])]
    parts += [
        f"**{markdown_text(title)}**\n\n{_escaped_table(columns, rows)}"
        for title, columns, rows in tables(report)
    ]
    parts.append(markdown_list(notes(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def latency_summary(report: Report) -> str:
    """Return one small table with a row a subject, and what it was measured on.

    Ratios are to the released code's order if that was measured.
    """
    base = report.subjects[RELEASED if RELEASED in report.subjects else report.reference]
    columns = ["", *(f"{pictures_of(batch)}, ms" for batch in report.config.batch)]
    columns += ["cold start, s", "CPU time of it, s", "peak memory, MB", "disk, MB", "least PSNR, dB"]
    rows = [
        [name, *_latency_cells(report, subject, base), *_cold_start_cells(subject), *_file_cells(subject)]
        for name, subject in report.subjects.items()
        if subject.latency
    ]
    noise = "; ".join(report.noise.reasons)
    remark = f" Not a quiet machine: {noise}." if noise else ""
    return f"{_escaped_table(columns, rows)}\n\n{markdown_text(machine_line(report) + '.' + remark)}"


def _latency_cells(report: Report, subject: SubjectReport, base: SubjectReport) -> list[str]:
    cells = []
    for batch in report.config.batch:
        latency = subject.latency[str(batch)]
        ratio = ratio_of(latency.samples["total"], base.latency[str(batch)].samples["total"]).median
        cells.append(f"{format_ms(latency.seconds['total'].p50)} ({ratio:.2f}×)")
    return cells


def _cold_start_cells(subject: SubjectReport) -> list[str]:
    starts = subject.fresh
    if not starts:
        return [NONE] * 3
    return [f"{stage_seconds(starts)['total']:.2f}", f"{cpu_seconds(starts):.2f}", f"{peak_mb(starts):.0f}"]


def _file_cells(subject: SubjectReport) -> list[str]:
    parity = subject.parity
    return [
        format_mb(subject.disk_bytes),
        format_decibels(parity.psnr_min, parity) if parity else NONE,
    ]


def fid_summary(report: Report) -> str:
    """Return the FID of each subject as a table."""
    _, columns, rows = fid_table(report)
    return _escaped_table(columns, rows)


def _escaped_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(list(map(markdown_text, columns)), [list(map(markdown_text, row)) for row in rows])
