"""A report as one HTML file with nothing beside it: tables and plots, light and dark, screen and paper."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from galip_bench.tables import notes_of, tables_of

__all__ = ["page"]

WIDTH, LABELS, ROW = 640, 170, 30
"""Pixels: of a plot, of the names left of it, of a subject's row."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #667385; --line: #d9dfe6; --paper: #ffffff;
  --accent: #1f6feb; --other: #d1622b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #93a1b2; --line: #303a46;
  --paper: #12171d; --accent: #6aa5ff; --other: #f0925c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 960px; padding: 24px 16px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 8px; }
p, li { color: var(--soft); } ul { padding-left: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
svg { display: block; width: 100%; height: auto; max-width: 720px; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .dot { fill: var(--accent); fill-opacity: .35; }
svg .mark { stroke: var(--other); stroke-width: 2; } svg .bar { fill: var(--accent); }
svg .path { fill: none; stroke: var(--accent); stroke-width: 1.5; }
.warning { border-left: 3px solid var(--other); padding-left: 10px; color: var(--ink); }
@media print { body { padding: 0; font-size: 11px; max-width: none; } h2 { margin: 14px 0 4px; }
  section { break-inside: avoid; } svg { max-width: 460px; }
  table { font-size: 10px; } th, td { padding: 2px 6px; } }
"""


def page(report: Mapping[str, Any]) -> str:
    """The whole file."""
    batches = report["config"]["batch"]
    parts = [_section(title, _table(columns, rows)) for title, columns, rows in tables_of(report)]
    plots = [
        _section(f"Every sample at batch {batch}, ms; the median marked", _distributions(report, batch))
        for batch in batches
    ]
    if len(batches) > 1:
        plots.append(_section("Milliseconds a picture, by batch size", _scaling(report)))
    if any(each["fresh"] for each in report["subjects"].values()):
        plots.append(_section("Peak resident memory, MB", _memory(report)))
    if any(each["parity"] for each in report["subjects"].values()):
        plots.append(_section("Time against quality: left is faster, up is closer", _quality(report)))
    warning = ""
    if report["noise"]["noisy"]:
        warning = f'<p class="warning">Noisy machine: {_text("; ".join(report["noise"]["reasons"]))}.</p>'
    notes = "".join(f"<li>{_text(note)}</li>" for note in notes_of(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>galip bench</title><style>{_STYLE}</style></head><body>"
        f"<h1>galip bench</h1><p>{_text(report['command'])}</p>{warning}"
        f"{''.join(parts)}{''.join(plots)}<h2>Measured on</h2><ul>{notes}</ul></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _distributions(report: Mapping[str, Any], batch: int) -> str:
    samples = {
        name: [1000 * value for value in subject["latency"][str(batch)]["samples"]["total"]]
        for name, subject in report["subjects"].items()
    }
    x = _scale(0, max(max(values) for values in samples.values()))
    rows = []
    for index, (name, values) in enumerate(samples.items()):
        y = ROW * index + ROW / 2
        middle = sorted(values)[len(values) // 2]
        rows.append(_name(name, y))
        rows += [f'<circle class="dot" cx="{x(value):.1f}" cy="{y}" r="3.5"/>' for value in values]
        rows.append(f'<path class="mark" d="M{x(middle):.1f} {y - 9}v18"/>')
    return _plot(rows, len(samples), x, _ticks(max(max(values) for values in samples.values())))


def _memory(report: Mapping[str, Any]) -> str:
    peaks = {
        name: max(run["peak_resident_bytes"] for run in subject["fresh"]) / 1e6
        for name, subject in report["subjects"].items()
        if subject["fresh"]
    }
    x = _scale(0, max(peaks.values()))
    rows = []
    for index, (name, value) in enumerate(peaks.items()):
        y = ROW * index + ROW / 2
        rows.append(_name(name, y))
        rows.append(f'<rect class="bar" x="{x(0)}" y="{y - 7}" width="{x(value) - x(0):.1f}" height="14"/>')
    return _plot(rows, len(peaks), x, _ticks(max(peaks.values())))


def _scaling(report: Mapping[str, Any]) -> str:
    batches, height = report["config"]["batch"], 240
    lines = {
        name: [1000 * subject["latency"][str(size)]["seconds"]["total"]["p50"] / size for size in batches]
        for name, subject in report["subjects"].items()
    }
    top = max(max(values) for values in lines.values())
    place = {
        size: 60 + index * (WIDTH - 90 - LABELS) / (len(batches) - 1) for index, size in enumerate(batches)
    }
    parts = [
        f'<path class="grid" d="M60 {_up(tick, top, height):.1f}H{WIDTH - LABELS - 30}"/>'
        f'<text class="soft" x="52" y="{_up(tick, top, height) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(top)
    ]
    taken: list[float] = []
    for name, values in sorted(lines.items(), key=lambda item: -item[1][-1]):
        points = " ".join(
            f"{place[size]:.1f},{_up(value, top, height):.1f}"
            for size, value in zip(batches, values, strict=True)
        )
        y = _up(values[-1], top, height) + 4
        while any(abs(y - other) < 14 for other in taken):
            y += 2
        taken.append(y)
        parts.append(f'<polyline class="path" points="{points}"/>')
        parts.append(f'<text x="{WIDTH - LABELS - 22}" y="{y:.1f}">{_text(name)}</text>')
    parts += [
        f'<text class="soft" x="{x:.1f}" y="{height + 18}" text-anchor="middle">{size}</text>'
        for size, x in place.items()
    ]
    return _svg(parts, max(height + 26, round(max(taken)) + 8))


def _quality(report: Mapping[str, Any]) -> str:
    batch, height = str(report["config"]["batch"][0]), 240
    points = {
        name: (1000 * subject["latency"][batch]["seconds"]["total"]["p50"], subject["parity"]["psnr_p1"])
        for name, subject in report["subjects"].items()
        if subject["parity"] and subject["parity"]["max_abs"] is not None
    }
    right = 1.15 * max(time for time, _ in points.values())
    best = 1.1 * max((value for _, value in points.values() if value is not None), default=60.0)
    x = _scale(0, right)
    parts = [
        f'<path class="grid" d="M60 {_up(tick, best, height):.1f}H{WIDTH}"/>'
        f'<text class="soft" x="52" y="{_up(tick, best, height) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(best)
    ]
    for name, (time, value) in points.items():
        y = _up(best if value is None else value, best, height)
        side = "end" if x(time) > WIDTH - LABELS else "start"
        shift = -8 if side == "end" else 8
        label = f"{name} (equal)" if value is None else name
        parts.append(f'<circle class="bar" cx="{x(time):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(
            f'<text x="{x(time) + shift:.1f}" y="{y + 4:.1f}" text-anchor="{side}">{_text(label)}</text>'
        )
    parts += [
        f'<text class="soft" x="{x(tick):.1f}" y="{height + 18}" text-anchor="middle">{tick:g} ms</text>'
        for tick in _ticks(right)
    ]
    parts.append('<text class="soft" x="4" y="12">dB PSNR, first percentile</text>')
    return _svg(parts, height + 26)


def _scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: LABELS + (value - low) / (high - low) * (WIDTH - LABELS - 20)


def _up(value: float, top: float, height: int) -> float:
    return height - value / top * (height - 24)


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 up to `top`, four to eight of them."""
    unit = 10.0 ** (len(f"{int(top)}") - 1) if top >= 1 else 10.0 ** -(len(f"{1 / top:.0f}"))
    step = next(unit * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2) if top / (unit * factor) <= 8)
    return [round(step * index, 10) for index in range(int(top / step) + 1)]


def _name(name: str, y: float) -> str:
    return f'<text x="{LABELS - 12}" y="{y + 4}" text-anchor="end">{_text(name)}</text>'


def _plot(rows: Sequence[str], count: int, x: Callable[[float], float], ticks: Sequence[float]) -> str:
    height = ROW * count
    grid = [
        f'<path class="grid" d="M{x(tick):.1f} 0V{height}"/>'
        f'<text class="soft" x="{x(tick):.1f}" y="{height + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks
    ]
    return _svg([*grid, *rows], height + 24)


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _text(value: str) -> str:
    return html.escape(str(value))
