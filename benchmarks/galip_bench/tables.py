"""A report for people: tables on a terminal, or Markdown for a README."""

from __future__ import annotations

import html
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from galip_runtime.console import escape

from galip_bench.latency import PHASES
from galip_bench.subjects import RELEASED, is_bundle
from galip_bench.summary import ratio_of

if TYPE_CHECKING:
    from rich.console import Group

__all__ = [
    "Table",
    "fid_summary",
    "headlines",
    "markdown",
    "markdown_text",
    "notes_of",
    "pictures_of",
    "summary",
    "tables_of",
    "terminal",
    "warnings_of",
]

_TOLD = ("torch", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino", "tensorrt")

Table = tuple[str, list[str], list[list[str]]]
"""Title, column names, rows."""


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """The report's figures as texts: latency for each batch size, phases, without PNG where there is a GPU,
    start and memory, parity, FID.
    """
    subjects, batches = report["subjects"], report["config"]["batch"]
    found = [_latency(report, batch) for batch in batches] + [_phases(report, batches[0])]
    if report["machine"]["gpu"]:
        found.append(_arrays(report))
    if any(each["fresh"] for each in subjects.values()):
        found.append(_fresh(subjects))
    if any(each["parity"] for each in subjects.values()):
        found.append(_parity(report))
    if report["fid"]:
        found.append(_fid(report))
    return [_without_empty(table) for table in found]


def headlines(report: Mapping[str, Any]) -> list[str]:
    """What most people look for, of each bundle: a sentence."""
    batch, reference = report["config"]["batch"][0], report["reference"]
    subjects = report["subjects"]
    lines = []
    for name, subject in subjects.items():
        if not is_bundle(name) or not subject["latency"]:
            continue
        ratio = subject["latency"][str(batch)]["ratio"]
        low, high = ratio["rerun_interval_95"] or ratio["interval_95"]
        share = f"{ratio['median']:.2f} ({low:.2f}–{high:.2f})"
        parts = [f"{name}: {pictures_of(batch)} in {share} of {reference}'s time"]
        if subject["fresh"] and subjects[reference]["fresh"]:
            starts = [_middle(each["fresh"])["total"] for each in (subject, subjects[reference])]
            peaks = [_peak(each["fresh"]) for each in (subject, subjects[reference])]
            parts.append("cold start {:.2f} s instead of {:.2f}".format(*starts))
            parts.append("peak memory {:.0f} MB instead of {:.0f}".format(*peaks))
        if parity := subject["parity"]:
            closest = _decibels(parity["psnr_min"], parity)
            parts.append(f"PSNR {closest} dB at least" if parity["psnr_min"] else "equal pictures")
        lines.append("; ".join(parts))
    return lines


def summary(report: Mapping[str, Any]) -> str:
    """One small table as Markdown, a row a subject, and what it was measured on: for a README.

    Ratios are to the released code's order where that was measured.
    """
    batches, subjects = report["config"]["batch"], report["subjects"]
    base = RELEASED if RELEASED in subjects else report["reference"]
    columns = ["", *(f"{pictures_of(batch)}, ms" for batch in batches)]
    columns += ["cold start, s", "CPU time of it, s", "peak memory, MB", "disk, MB", "least PSNR, dB"]
    rows = []
    for name, subject in subjects.items():
        if not subject["latency"]:
            continue
        row = [name]
        for batch in batches:
            measured = subject["latency"][str(batch)]
            others = subjects[base]["latency"][str(batch)]["samples"]["total"]
            ratio = ratio_of(measured["samples"]["total"], others).median
            row.append(f"{_ms(measured['seconds']['total']['p50'])} ({ratio:.2f}×)")
        row.append(f"{_middle(subject['fresh'])['total']:.2f}" if subject["fresh"] else "–")
        row.append(f"{_cpu(subject['fresh']):.2f}" if subject["fresh"] else "–")
        row.append(f"{_peak(subject['fresh']):.0f}" if subject["fresh"] else "–")
        parity = subject["parity"]
        row += [_mb(subject["disk_bytes"]), _decibels(parity["psnr_min"], parity) if parity else "–"]
        rows.append(row)
    noise = "; ".join(report["noise"]["reasons"])
    said = f" Not a quiet machine: {noise}." if noise else ""
    return f"{_markdown_table(columns, rows)}\n\n{markdown_text(machine_of(report) + '.' + said)}"


def fid_summary(report: Mapping[str, Any]) -> str:
    """FID of each subject as Markdown."""
    _, columns, rows = _without_empty(_fid(report))
    return _markdown_table(columns, rows)


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What a reader may want to know beside the tables: machine, what was not measured."""
    notes = [machine_of(report)]
    notes += [f"not measured: {name}: {why}" for name, why in report["unavailable"].items()]
    if "compiled-fp32" in report["subjects"] and report["config"]["cold_starts"]:
        notes.append(
            "cold starts find files in the system's cache, those of compiled-fp32 its compiler's, too"
        )
    if any("-openvino-" in name for name in report["subjects"]) and report["config"]["cold_starts"]:
        notes.append(
            "cold starts of openvino find the graphs that it compiled when the bundle was first loaded"
        )
    if (fid := report["fid"]) and not fid["against"]:
        notes.append("no real pictures were given (--against), so there is no FID against them")
    return notes


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before the tables: what went wrong, and noise."""
    reasons = "; ".join(report["noise"]["reasons"])
    noise = [f"noisy machine: {reasons}. Trust ratios, not times"] if reasons else []
    return [*report["warnings"], *noise]


def machine_of(report: Mapping[str, Any]) -> str:
    """Hardware and versions in a line."""
    machine = report["machine"]
    parts = [machine["cpu"], f"{report['threads']} threads of {machine['usable_cores']} usable cores"]
    parts += [" ".join(machine["cpu_features"])] if machine["cpu_features"] else []
    if gpu := machine["gpu"]:
        parts.insert(0, f"{gpu['name']} (driver {gpu['driver']}, CUDA {gpu['cuda']})")
    versions = [f"{name} {machine['versions'][name]}" for name in _TOLD if name in machine["versions"]]
    parts += [machine["system"], f"Python {machine['python']}", *versions]
    if commit := machine["commit"]:
        parts.append(f"commit {commit[:12]}{' and changes' if commit.endswith('+') else ''}")
    return ", ".join(parts)


def terminal(report: Mapping[str, Any]) -> Group:
    """The tables for `rich`."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    def text(value: str) -> Text:  # not a str, which rich reads as markup
        return Text(escape(value))

    parts: list[Any] = []
    for title, columns, rows in tables_of(report):
        table = RichTable(title=text(title), title_justify="left", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(text(column), justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in rows:
            table.add_row(*map(text, row))
        parts += [table, ""]
    lines = (*headlines(report), *notes_of(report), *warnings_of(report))  # the last ones stay in sight
    return Group(*parts, *map(text, lines))


def markdown(report: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    parts = [_bullets([*warnings_of(report), *headlines(report)])]
    parts += [
        f"**{markdown_text(title)}**\n\n{_markdown_table(columns, rows)}"
        for title, columns, rows in tables_of(report)
    ]
    parts.append(_bullets(notes_of(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_text(value: object) -> str:
    """`value` on one line as Markdown that shows it as it is: no markup, table cells or HTML within."""
    shown = re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", escape(value))
    return re.sub(r"^([#+=-])(?=\W|$)", r"\\\1", html.escape(shown, quote=False))


def pictures_of(batch: int) -> str:
    """`1 picture`, `4 pictures at once`."""
    return "1 picture" if batch == 1 else f"{batch} pictures at once"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|--:" * (len(columns) - 1) + "|"
    return "\n".join([_line(columns), rule, *map(_line, rows)])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


def _without_empty(table: Table) -> Table:
    """Without columns that have nothing in any row."""
    title, columns, rows = table
    kept = [index for index in range(len(columns)) if index == 0 or any(row[index] != "–" for row in rows)]
    return title, [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _latency(report: Mapping[str, Any], batch: int) -> Table:
    columns = ["subject", "min", "mean", "p50", "95 %", "p90", "p95", "p99"]
    columns += [f"× {report['reference']}", "95 %", "another run"]
    rows = []
    for name, subject in report["subjects"].items():
        if (measured := subject["latency"].get(str(batch))) is None:
            continue
        total, ratio = measured["seconds"]["total"], measured["ratio"]
        low, high = total["median_interval_95"]
        is_reference = name == report["reference"]
        rows.append(
            [
                name,
                *(_ms(total[key]) for key in ("min", "mean", "p50")),
                f"{_ms(low)}–{_ms(high)}",
                *(_ms(total[key]) for key in ("p90", "p95", "p99")),
                f"{ratio['median']:.3f}",
                "–" if is_reference else _between(ratio["interval_95"]),
                "–" if is_reference else _between(ratio["rerun_interval_95"]),
            ]
        )
    rounds = f"{sum(report['launches'])} rounds in {len(report['launches'])} processes"
    return f"Latency from prompt to PNG, {pictures_of(batch)}, ms ({rounds})", columns, rows


def _between(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _phases(report: Mapping[str, Any], batch: int) -> Table:
    columns = ["subject", *PHASES]
    rows = [
        [name, *(_ms(measured["seconds"].get(phase, {}).get("p50")) for phase in PHASES)]
        for name, subject in report["subjects"].items()
        if (measured := subject["latency"].get(str(batch)))
    ]
    return f"Where the time goes, {pictures_of(batch)}, ms (median)", columns, rows


def _arrays(report: Mapping[str, Any]) -> Table:
    """From prompts to pictures in memory: beside a GPU's times, a PNG's is long."""
    batches = report["config"]["batch"]
    columns = ["subject"]
    for batch in batches:
        columns += [f"{pictures_of(batch)}, ms", f"× {report['reference']}", "pictures/s"]
    rows = []
    for name, subject in report["subjects"].items():
        if not subject["latency"]:
            continue
        row = [name]
        for batch in batches:
            own, others = (
                _without_png(each["latency"][str(batch)]["samples"])
                for each in (subject, report["subjects"][report["reference"]])
            )
            middle = statistics.median(own)
            row += [_ms(middle), f"{ratio_of(own, others).median:.3f}", f"{batch / middle:,.0f}"]
        rows.append(row)
    return "From prompts to pictures in memory, without PNG (median)", columns, rows


def _without_png(samples: Mapping[str, Sequence[float]]) -> list[float]:
    return [total - png for total, png in zip(samples["total"], samples["png"], strict=True)]


def _fresh(subjects: Mapping[str, Any]) -> Table:
    columns = ["subject", "cold start, s", "import", "load", "first picture", "CPU time, s"]
    columns += ["peak memory, MB", "of no file, MB", "disk, MB"]
    with_gpu = any(
        run["peak_device_bytes"] is not None for each in subjects.values() for run in each["fresh"]
    )
    columns += ["GPU memory, MB"] if with_gpu else []
    rows = []
    for name, subject in subjects.items():
        if not (runs := subject["fresh"]):
            continue
        middle = _middle(runs)
        devices = [run["peak_device_bytes"] for run in runs if run["peak_device_bytes"] is not None]
        stages = [f"{middle[stage]:.2f}" for stage in ("total", "import", "load", "first_picture")]
        own = [run["anonymous_bytes"] for run in runs if run["anonymous_bytes"] is not None]
        row = [name, *stages, f"{_cpu(runs):.2f}", f"{_peak(runs):.0f}"]
        row += [f"{max(own) / 1e6:.0f}" if own else "–", _mb(subject["disk_bytes"])]
        if with_gpu:
            row.append(f"{max(devices) / 1e6:.0f}" if devices else "–")
        rows.append(row)
    return "Cold start in a fresh process (median), peak memory, size on disk", columns, rows


def _parity(report: Mapping[str, Any]) -> Table:
    columns = ["subject", "max error", "mean error", "PSNR min, dB", "p1", "median", "SSIM min"]
    columns += ["feature distance", "NaN/Inf"]
    rows = []
    for name, subject in report["subjects"].items():
        if (parity := subject["parity"]) is None:
            continue
        rows.append(
            [
                name,
                _small(parity["max_abs"]),
                _small(parity["mean_abs"]),
                _decibels(parity["psnr_min"], parity),
                "–" if parity["pictures"] < 100 else _decibels(parity["psnr_p1"], parity),
                _decibels(parity["psnr_median"], parity),
                "–" if parity["ssim_min"] is None else f"{parity['ssim_min']:.5f}",
                _small(parity["feature_distance_max"]),
                str(parity["not_finite"]),
            ]
        )
    return f"Parity with {report['reference']}, {report['config']['pictures']} pictures", columns, rows


def _fid(report: Mapping[str, Any]) -> Table:
    facts = report["fid"]
    columns = ["subject", "FID", "change", "95 %", f"FID to {report['reference']}", "NaN/Inf"]
    rows = []
    for name, subject in report["subjects"].items():
        fid, interval = subject["fid"], subject["fid"]["delta_interval_95"]
        between = "–" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
        direct = "–" if fid["direct"] is None else f"{fid['direct']:.2g}"
        if name == report["reference"]:
            direct = between = "–"
        figures = [
            "–" if fid[key] is None else f"{fid[key]:{form}}"
            for key, form in (("fid", ".3f"), ("delta", "+.3f"))
        ]
        rows.append([name, *figures, between, direct, str(fid["not_finite"])])
    known = facts["against"]
    real = f" against {known['pictures'] or 'an unknown number of'} real pictures" if known else ""
    return f"FID of {facts['pictures']} pictures{real}", columns, rows


def _middle(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median seconds of each stage of cold starts."""
    return {stage: statistics.median(run["seconds"][stage] for run in runs) for stage in runs[0]["seconds"]}


def _cpu(runs: Sequence[Mapping[str, Any]]) -> float:
    """Median of all threads' seconds until the first picture."""
    return statistics.median(run["cpu_seconds"] for run in runs)


def _peak(runs: Sequence[Mapping[str, Any]]) -> float:
    """MB."""
    return max(run["peak_resident_bytes"] for run in runs) / 1e6


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 10e6 else f"{size / 1e6:.1f}"


def _ms(seconds: float | None) -> str:
    """Milliseconds, three digits of them."""
    if seconds is None:
        return "–"
    milliseconds = 1000 * seconds
    decimals = next((n for n, least in enumerate((100, 10, 1)) if milliseconds >= least), 3)
    return f"{milliseconds:,.{decimals}f}"


def _small(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value else "0"


def _decibels(value: float | None, parity: Mapping[str, Any]) -> str:
    if value is not None:
        return f"{value:.1f}"
    return "–" if parity["max_abs"] is None else "equal"
