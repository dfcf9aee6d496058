"""A report for people: tables on a terminal, or Markdown for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Table", "markdown", "tables_of", "terminal"]

_TOLD = ("torch", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "tensorrt")

Table = tuple[str, list[str], list[list[str]]]
"""Title, column names, rows."""


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """The report's figures as texts: latency for each batch size, start and memory, parity."""
    found = [_latency(report, batch) for batch in report["config"]["batch"]]
    subjects = report["subjects"]
    if any(each["fresh"] for each in subjects.values()):
        found.append(_fresh(subjects))
    if any(each["parity"] for each in subjects.values()):
        found.append(_parity(report))
    if report["fid"]:
        found.append(_fid(report))
    return found


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What a reader has to know beside the tables: machine, noise, what was not measured."""
    notes = [machine_of(report)]
    if report["noise"]["noisy"]:
        notes.append(f"noisy machine: {'; '.join(report['noise']['reasons'])}. Trust ratios, not times")
    notes += [f"not measured: {name}: {why}" for name, why in report["unavailable"].items()]
    if "compiled-fp32" in report["subjects"] and report["config"]["cold_starts"]:
        notes.append("cold starts of compiled-fp32 find its compiler's cache filled")
    if (fid := report["fid"]) and not fid["against"]:
        notes.append("no real pictures were given (--against), so there is no FID against them")
    return notes + list(report["warnings"])


def machine_of(report: Mapping[str, Any]) -> str:
    """Hardware and versions in a line."""
    machine = report["machine"]
    parts = [machine["cpu"], f"{report['threads']} threads of {machine['usable_cores']} usable cores"]
    parts += [" ".join(machine["cpu_features"])] if machine["cpu_features"] else []
    if gpu := machine["gpu"]:
        parts.insert(0, f"{gpu['name']} (driver {gpu['driver']}, CUDA {gpu['cuda']})")
    versions = [f"{name} {machine['versions'][name]}" for name in _TOLD if name in machine["versions"]]
    parts += [machine["system"], f"Python {machine['python']}", *versions]
    return ", ".join([*parts, f"commit {(machine['commit'] or 'unknown')[:12]}"])


def terminal(report: Mapping[str, Any]) -> Group:
    """The tables for `rich`."""
    from rich.console import Group
    from rich.table import Table as RichTable

    parts: list[Any] = []
    for title, columns, rows in tables_of(report):
        table = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in rows:
            table.add_row(*row)
        parts += [table, ""]
    return Group(*parts, *notes_of(report))


def markdown(report: Mapping[str, Any]) -> str:
    """The tables and notes as Markdown."""
    parts = []
    for title, columns, rows in tables_of(report):
        lines = [f"**{title}**", "", _line(columns), "|---" + "|--:" * (len(columns) - 1) + "|"]
        parts.append("\n".join([*lines, *map(_line, rows)]))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes_of(report))]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latency(report: Mapping[str, Any], batch: int) -> Table:
    columns = ["subject", "p50", "95 %", "p90", "p99", "generator", f"× {report['reference']}", "95 %"]
    rows = []
    for name, subject in report["subjects"].items():
        if (measured := subject["latency"].get(str(batch))) is None:
            continue
        total, ratio = measured["seconds"]["total"], measured["ratio"]
        low, high = total["median_interval_95"]
        rows.append(
            [
                name,
                _ms(total["p50"]),
                f"{_ms(low)}–{_ms(high)}",
                _ms(total["p90"]),
                _ms(total["p99"]),
                _ms(measured["seconds"]["generator"]["p50"]),
                f"{ratio['median']:.3f}",
                f"{ratio['interval_95'][0]:.3f}–{ratio['interval_95'][1]:.3f}",
            ]
        )
    pictures = "1 picture" if batch == 1 else f"{batch} pictures at once"
    return f"Latency from prompt to PNG, {pictures}, ms ({sum(report['launches'])} rounds)", columns, rows


def _fresh(subjects: Mapping[str, Any]) -> Table:
    columns = ["subject", "cold start, s", "import", "load", "first picture", "peak memory, MB", "disk, MB"]
    with_gpu = any(
        run["peak_device_bytes"] is not None for each in subjects.values() for run in each["fresh"]
    )
    columns += ["GPU memory, MB"] if with_gpu else []
    rows = []
    for name, subject in subjects.items():
        if not (runs := subject["fresh"]):
            continue
        middle = {
            stage: sorted(run["seconds"][stage] for run in runs)[len(runs) // 2]
            for stage in runs[0]["seconds"]
        }
        peak = max(run["peak_resident_bytes"] for run in runs)
        devices = [run["peak_device_bytes"] for run in runs if run["peak_device_bytes"] is not None]
        stages = [f"{middle[stage]:.2f}" for stage in ("total", "import", "load", "first_picture")]
        row = [name, *stages, f"{peak / 1e6:.0f}", f"{subject['disk_bytes'] / 1e6:.0f}"]
        if with_gpu:
            row.append(f"{max(devices) / 1e6:.0f}" if devices else "–")
        rows.append(row)
    return "Cold start in a fresh process (median), peak memory, size on disk", columns, rows


def _parity(report: Mapping[str, Any]) -> Table:
    columns = [
        "subject",
        "max error",
        "mean error",
        "PSNR p1, dB",
        "median",
        "SSIM min",
        "feature distance",
        "NaN/Inf",
    ]
    rows = []
    for name, subject in report["subjects"].items():
        if (parity := subject["parity"]) is None:
            continue
        rows.append(
            [
                name,
                _small(parity["max_abs"]),
                _small(parity["mean_abs"]),
                _decibels(parity["psnr_p1"], parity),
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


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _decibels(value: float | None, parity: Mapping[str, Any]) -> str:
    if value is not None:
        return f"{value:.1f}"
    return "–" if parity["max_abs"] is None else "equal"
