"""A report's plots as SVG. Each subject has a class, `c0`, `c1` …, which the page's style gives a colour."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from galip_runtime.console import escape

from galip_bench.formatting import peak_mb
from galip_bench.report import Report

__all__ = ["COLOURS", "distributions", "html_text", "memory", "quality", "scaling"]

COLOURS = 8
"""Number of classes. Further subjects start again with `c0`; each has its name beside it."""
WIDTH, LABELS, ROW, HEIGHT = 440, 132, 28, 220
"""Pixels before scaling: a plot's width, the names' width, a row's height, the height without rows."""
LINE = 14
"""Least distance in pixels between two names, one below the other."""


def html_text(value: object) -> str:
    """Return HTML that shows `value` as it is, with control characters escaped."""
    return html.escape(escape(value))


def distributions(report: Report, batch: int) -> str:
    """Plot every sample at a batch size, in ms, with the median marked."""
    samples = {
        name: [1000 * value for value in subject.latency[str(batch)].samples["total"]]
        for name, subject in report.subjects.items()
        if subject.latency
    }
    top = max(max(values) for values in samples.values())
    x = _across(top)
    parts = []
    for row, (name, values) in enumerate(samples.items()):
        y, colour = ROW * (row + 0.5), _colour(report, name)
        parts.append(_name(name, y))
        for number, value in enumerate(values):
            offset = 13 * (number * 0.618 % 1 - 0.5)  # so that dots of equal times don't hide each other
            parts.append(f'<circle class="{colour} dot" cx="{x(value):.1f}" cy="{y + offset:.1f}" r="2.4"/>')
        middle = sorted(values)[len(values) // 2]
        parts.append(f'<path class="mark" d="M{x(middle):.1f} {y - 11}v22"/>')
    return _rows(parts, len(samples), x, top)


def memory(report: Report) -> str:
    """Plot the peak of resident memory, in MB."""
    peaks = {name: peak_mb(subject.fresh) for name, subject in report.subjects.items() if subject.fresh}
    top = max(peaks.values())
    x = _across(top)
    parts = []
    for row, (name, value) in enumerate(peaks.items()):
        y, colour = ROW * (row + 0.5), _colour(report, name)
        parts.append(_name(name, y))
        width = x(value) - x(0)
        parts.append(f'<rect class="{colour}" x="{x(0)}" y="{y - 8}" width="{width:.1f}" height="16"/>')
    return _rows(parts, len(peaks), x, top)


def scaling(report: Report) -> str:
    """Plot the median milliseconds a picture, by batch size."""
    sizes = report.config.batch
    lines = {
        name: [1000 * subject.latency[str(size)].seconds["total"].p50 / size for size in sizes]
        for name, subject in report.subjects.items()
        if subject.latency
    }
    top = max(max(values) for values in lines.values())
    y = _up(top)
    right = WIDTH - LABELS
    place = {size: 44 + index * (right - 56) / (len(sizes) - 1) for index, size in enumerate(sizes)}
    parts = _grid_up(y, top, right)
    names = _apart({name: y(values[-1]) for name, values in lines.items()})
    for name, values in lines.items():
        points = [(place[size], y(value)) for size, value in zip(sizes, values, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        colour = _colour(report, name)
        parts.append(f'<polyline class="{colour} path" points="{path}"/>')
        parts += [f'<circle class="{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
        parts.append(_leader(*points[-1], right + 2, names[name]))
        parts.append(_name_right(name, names[name], colour))
    parts += [_tick(place[size], HEIGHT, f"{size}") for size in sizes]
    return _svg(parts, HEIGHT + 24)


def quality(report: Report) -> str:
    """Plot the median time (ms) at the first batch size against the lowest PSNR (dB; equal is on top)."""
    batch = str(report.config.batch[0])
    points = {
        name: (1000 * subject.latency[batch].seconds["total"].p50, subject.parity.psnr_min)
        for name, subject in report.subjects.items()
        if subject.latency and subject.parity
    }
    top = 1.15 * max((value for _, value in points.values() if value is not None), default=60.0)
    slowest = max(time for time, _ in points.values())
    right = WIDTH - LABELS
    x, y = _across(slowest, 44, right), _up(top)
    parts = _grid_up(y, top, right)
    heights = {name: y(top if value is None else value) for name, (_, value) in points.items()}
    names = _apart(heights)
    for name, (time, value) in points.items():
        colour = _colour(report, name)
        label = f"{name} (equal)" if value is None else name
        parts.append(
            f'<path class="grid" d="M{x(time):.1f} {heights[name]:.1f}L{right + 2} {names[name]:.1f}"/>'
        )
        parts.append(f'<circle class="{colour}" cx="{x(time):.1f}" cy="{heights[name]:.1f}" r="5"/>')
        parts.append(_name_right(label, names[name], colour))
    parts += [_tick(x(value), HEIGHT, f"{value:g}") for value in _ticks(slowest)]
    return _svg(parts, HEIGHT + 24)


def _across(top: float, left: int = LABELS, right: int = WIDTH) -> Callable[[float], float]:
    """Return the scale from values of 0 to `top` to pixels from `left` to a little before `right`."""
    return lambda value: left + value / top * (right - left - 14)


def _up(top: float) -> Callable[[float], float]:
    """Return the scale from values of 0 to `top` to pixels from the foot up."""
    return lambda value: HEIGHT - value / top * (HEIGHT - 12)


def _ticks(top: float) -> list[float]:
    """Return four to eight round numbers from 0 to `top`."""
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(unit * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2) if top / (unit * factor) <= 8)
    return [round(step * index, 10) for index in range(int(top / step + 1e-9) + 1)]


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Return where to write names that belong at `heights`: at least a line apart, and not below the foot."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = last = max(height, last + LINE)
    limit = float(HEIGHT)
    for name in reversed(placed):
        placed[name] = limit = min(placed[name], limit)
        limit -= LINE
    return placed


def _grid_up(y: Callable[[float], float], top: float, right: float) -> list[str]:
    return [
        f'<path class="grid" d="M44 {y(tick):.1f}H{right}"/>'
        f'<text class="soft" x="38" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(top)
    ]


def _rows(parts: Sequence[str], count: int, x: Callable[[float], float], top: float) -> str:
    """Return a plot with a row a subject above its scale."""
    height = ROW * count
    grid = [f'<path class="grid" d="M{x(tick):.1f} 0V{height}"/>' for tick in _ticks(top)]
    return _svg([*grid, *parts, *(_tick(x(tick), height, f"{tick:g}") for tick in _ticks(top))], height + 24)


def _tick(x: float, foot: float, label: str) -> str:
    return f'<text class="soft" x="{x:.1f}" y="{foot + 17}" text-anchor="middle">{label}</text>'


def _leader(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return a line from a point to its name, if the name had to move."""
    return f'<path class="grid" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>' if abs(to_y - y) > 3 else ""


def _name(name: str, y: float) -> str:
    return f'<text x="{LABELS - 10}" y="{y + 4}" text-anchor="end">{html_text(name)}</text>'


def _name_right(label: str, y: float, colour: str) -> str:
    return f'<text class="{colour}" x="{WIDTH - LABELS + 6}" y="{y + 4:.1f}">{html_text(label)}</text>'


def _colour(report: Report, name: str) -> str:
    return f"c{list(report.subjects).index(name) % COLOURS}"


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
