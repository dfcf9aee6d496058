"""A report's figures as tables of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from galip_bench.formatting import (
    NONE,
    cpu_seconds,
    format_decibels,
    format_mb,
    format_ms,
    format_small,
    peak_mb,
    pictures_of,
    stage_seconds,
)
from galip_bench.latency import PHASES
from galip_bench.report import Report, SubjectReport
from galip_bench.statistics import median, ratio_of

__all__ = ["TextTable", "fid_table", "tables"]

TextTable = tuple[str, list[str], list[list[str]]]
"""Title, column names, rows."""


def tables(report: Report) -> list[TextTable]:
    """Return the tables of a report.

    Latency by batch size, phases, latency without PNG if there is a GPU, cold start and memory, parity, FID.
    """
    subjects, batches = report.subjects.values(), report.config.batch
    result = [_latency(report, batch) for batch in batches] + [_phases(report, batches[0])]
    if report.machine.gpu:
        result.append(_latency_without_png(report))
    if any(subject.fresh for subject in subjects):
        result.append(_cold_starts(report.subjects))
    if any(subject.parity for subject in subjects):
        result.append(_parity(report))
    if report.fid:
        result.append(fid_table(report))
    return [_without_empty_columns(table) for table in result]


def fid_table(report: Report) -> TextTable:
    """Return the FID of each subject, without columns that would be empty."""
    settings = report.fid
    assert settings is not None
    columns = ["subject", "FID", "change", "95 %", f"FID to {report.reference}", "NaN/Inf"]
    rows = []
    for name, subject in report.subjects.items():
        fid = subject.fid
        assert fid is not None
        interval = fid.delta_interval_95
        between = NONE if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
        direct = NONE if fid.direct is None else f"{fid.direct:.2g}"
        if name == report.reference:
            direct = between = NONE
        figures = [
            NONE if value is None else f"{value:{form}}"
            for value, form in ((fid.fid, ".3f"), (fid.delta, "+.3f"))
        ]
        rows.append([name, *figures, between, direct, str(fid.not_finite)])
    count = settings.against and (settings.against["pictures"] or "an unknown number of")
    real = f" against {count} real pictures" if settings.against else ""
    return _without_empty_columns((f"FID of {settings.pictures} pictures{real}", columns, rows))


def _without_empty_columns(table: TextTable) -> TextTable:
    title, columns, rows = table
    indices = [
        index for index in range(len(columns)) if index == 0 or any(row[index] != NONE for row in rows)
    ]
    return title, [columns[index] for index in indices], [[row[index] for index in indices] for row in rows]


def _latency(report: Report, batch: int) -> TextTable:
    columns = ["subject", "p50", f"× {report.reference}", "95 %", "another run"]  # first: a phone shows them
    columns += ["p50, 95 %", "min", "mean", "p90", "p95", "p99"]
    rows = []
    for name, subject in report.subjects.items():
        if (latency := subject.latency.get(str(batch))) is None:
            continue
        total, ratio = latency.seconds["total"], latency.ratio
        low, high = total.median_interval_95
        is_reference = name == report.reference
        rows.append(
            [
                name,
                format_ms(total.p50),
                f"{ratio.median:.3f}",
                NONE if is_reference else _between(ratio.interval_95),
                NONE if is_reference else _between(ratio.rerun_interval_95),
                f"{format_ms(low)}–{format_ms(high)}",
                *map(format_ms, (total.min, total.mean, total.p90, total.p95, total.p99)),
            ]
        )
    rounds = f"{sum(report.launches)} rounds in {len(report.launches)} processes"
    return f"Latency from prompt to PNG, {pictures_of(batch)}, ms ({rounds})", columns, rows


def _between(interval: Sequence[float] | None) -> str:
    return NONE if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _phases(report: Report, batch: int) -> TextTable:
    columns = ["subject", *PHASES]
    rows = [
        [
            name,
            *(
                format_ms(latency.seconds[phase].p50) if phase in latency.seconds else NONE
                for phase in PHASES
            ),
        ]
        for name, subject in report.subjects.items()
        if (latency := subject.latency.get(str(batch)))
    ]
    return f"Where the time goes, {pictures_of(batch)}, ms (median)", columns, rows


def _latency_without_png(report: Report) -> TextTable:
    """From prompts to pictures in memory: on a GPU, writing the PNG takes longer than all the rest."""
    batches = report.config.batch
    columns = ["subject"]
    for batch in batches:
        columns += [f"{pictures_of(batch)}, ms", f"× {report.reference}", "pictures/s"]
    rows = []
    for name, subject in report.subjects.items():
        if not subject.latency:
            continue
        row = [name]
        for batch in batches:
            own, reference = (
                _without_png(of.latency[str(batch)].samples)
                for of in (subject, report.subjects[report.reference])
            )
            middle = median(own)
            row += [format_ms(middle), f"{ratio_of(own, reference).median:.3f}", f"{batch / middle:,.0f}"]
        rows.append(row)
    return "From prompts to pictures in memory, without PNG (median)", columns, rows


def _without_png(samples: Mapping[str, Sequence[float]]) -> list[float]:
    return [total - png for total, png in zip(samples["total"], samples["png"], strict=True)]


def _cold_starts(subjects: Mapping[str, SubjectReport]) -> TextTable:
    columns = ["subject", "cold start, s", "import", "load", "first picture", "CPU time, s"]
    columns += ["peak memory, MB", "of no file, MB", "disk, MB"]
    with_gpu = any(
        start.peak_device_bytes is not None for subject in subjects.values() for start in subject.fresh
    )
    columns += ["GPU memory, MB"] if with_gpu else []
    rows = []
    for name, subject in subjects.items():
        if not (starts := subject.fresh):
            continue
        seconds = stage_seconds(starts)
        stages = [f"{seconds[stage]:.2f}" for stage in ("total", "import", "load", "first_picture")]
        row = [name, *stages, f"{cpu_seconds(starts):.2f}", f"{peak_mb(starts):.0f}"]
        row += [_max_mb([start.anonymous_bytes for start in starts]), format_mb(subject.disk_bytes)]
        if with_gpu:
            row.append(_max_mb([start.peak_device_bytes for start in starts]))
        rows.append(row)
    return "Cold start in a fresh process (median), peak memory, size on disk", columns, rows


def _max_mb(sizes: Sequence[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return f"{max(known) / 1e6:.0f}" if known else NONE


def _parity(report: Report) -> TextTable:
    columns = ["subject", "max error", "mean error", "PSNR min, dB", "p1", "median", "SSIM min"]
    columns += ["feature distance", "NaN/Inf"]
    rows = []
    for name, subject in report.subjects.items():
        if (parity := subject.parity) is None:
            continue
        rows.append(
            [
                name,
                format_small(parity.max_abs),
                format_small(parity.mean_abs),
                format_decibels(parity.psnr_min, parity),
                NONE if parity.pictures < 100 else format_decibels(parity.psnr_p1, parity),
                format_decibels(parity.psnr_median, parity),
                NONE if parity.ssim_min is None else f"{parity.ssim_min:.5f}",
                format_small(parity.feature_distance_max),
                str(parity.not_finite),
            ]
        )
    return f"Parity with {report.reference}, {report.config.pictures} pictures", columns, rows
