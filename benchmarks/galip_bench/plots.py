"""A report's plots: SVG between columns of HTML labels, which are as wide as their text and so never cut.

The SVG is as wide as what is left and has a fixed height, so x is in percent and y in pixels. Each subject
has a class, `c0`, `c1` …, which the page's style gives a colour.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

from galip_runtime.console import escape

from galip_bench.formatting import format_ms, peak_mb
from galip_bench.notes import speed_of
from galip_bench.report import Report

__all__ = ["COLOURS", "LINE", "ROW", "bars", "distributions", "html_text", "memory", "quality", "scaling"]

COLOURS = 8
"""Number of classes. Further subjects start again with `c0`; each has its name beside it."""
ROW, HEIGHT = 28, 220
"""Pixels: a row's height, the height without rows."""
LINE = 14
"""Height in pixels of a label, and the least distance between two, one below the other."""
_FOOT = 24
"""Pixels below a plot, for the labels of its scale."""

_Scale = Callable[[float], float]
_Labels = Sequence[tuple[float, str, str]]
"""Labels of a column, from the top: pixel at which the middle is, text, class."""


def html_text(value: object) -> str:
    """Return HTML that shows `value` as it is, with control characters escaped."""
    return html.escape(escape(value))


def bars(report: Report, batch: int) -> str:
    """Return the answer as bars, the fastest first: the median time at a batch size, and how much faster."""
    times = {
        name: subject.latency[str(batch)].seconds["total"].p50
        for name, subject in report.subjects.items()
        if subject.latency
    }
    slowest = max(times.values())
    rows = []
    for name, seconds in sorted(times.items(), key=lambda item: item[1]):
        speed = "" if name == report.reference else f", {speed_of(report, name, batch)}"
        rows.append(
            f"<li><span>{html_text(name)}</span> <b>{format_ms(seconds)} ms</b>{html_text(speed)}"
            f'<i class="{_colour(report, name)}" style="width:{100 * seconds / slowest:.1f}%"></i></li>'
        )
    return f'<ul class="bars">{"".join(rows)}</ul>'


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
        for number, value in enumerate(values):
            offset = 13 * (number * 0.618 % 1 - 0.5)  # so that dots of equal times don't hide each other
            parts.append(f'<circle class="{colour} dot" cx="{x(value):.2f}%" cy="{y + offset:.1f}" r="2.4"/>')
        middle = sorted(values)[len(values) // 2]
        parts.append(_line("mark", x(middle), y - 11, x(middle), y + 11))
    return _rows(list(samples), parts, x, top)


def memory(report: Report) -> str:
    """Plot the peak of resident memory, in MB."""
    peaks = {name: peak_mb(subject.fresh) for name, subject in report.subjects.items() if subject.fresh}
    top = max(peaks.values())
    x = _across(top)
    parts = [
        f'<rect class="{_colour(report, name)}" x="0" y="{ROW * (row + 0.5) - 8}" width="{x(value):.2f}%" '
        f'height="16"/>'
        for row, (name, value) in enumerate(peaks.items())
    ]
    return _rows(list(peaks), parts, x, top)


def scaling(report: Report) -> str:
    """Plot the median milliseconds a picture, by batch size."""
    sizes = report.config.batch
    lines = {
        name: [1000 * subject.latency[str(size)].seconds["total"].p50 / size for size in sizes]
        for name, subject in report.subjects.items()
        if subject.latency
    }
    top = max(max(values) for values in lines.values())
    ticks, y = _ticks(0, top), _up(0, top)
    place = {size: 4 + 88 * index / max(1, len(sizes) - 1) for index, size in enumerate(sizes)}
    parts = []
    names = _apart({name: y(values[-1]) for name, values in lines.items()})
    for name, values in lines.items():
        points = [(place[size], y(value)) for size, value in zip(sizes, values, strict=True)]
        colour = _colour(report, name)
        parts += [_line(f"{colour} path", *start, *end) for start, end in itertools.pairwise(points)]
        parts += [f'<circle class="{colour}" cx="{a:.2f}%" cy="{b:.1f}" r="3"/>' for a, b in points]
        parts.append(_line("grid", *points[-1], 100, names[name]))
    parts += [_tick(place[size], HEIGHT, f"{size}") for size in sizes]
    return _plot(_numbers(ticks, y), parts, _names(report, names), ticks, y)


def quality(report: Report) -> str:
    """Plot the median time (ms) at the first batch size against the lowest PSNR (dB).

    The scale of PSNR begins where values are. Equal pictures, which have none, are above it.
    """
    batch = str(report.config.batch[0])
    points = {
        name: (1000 * subject.latency[batch].seconds["total"].p50, subject.parity.psnr_min)
        for name, subject in report.subjects.items()
        if subject.latency and subject.parity
    }
    known = [value for _, value in points.values() if value is not None]
    ticks = _ticks(min(known), max(known)) if known else []
    equal = 2 * ticks[-1] - ticks[-2] if ticks else 1.0  # a step above the scale
    y = _up(ticks[0] if ticks else 0.0, equal)
    slowest = max(time for time, _ in points.values())
    x = _across(slowest)
    heights = {name: y(equal if value is None else value) for name, (_, value) in points.items()}
    names, parts = _apart(heights), []
    for name, (time, _) in points.items():
        parts.append(_line("grid", x(time), heights[name], 100, names[name]))
        parts.append(
            f'<circle class="{_colour(report, name)}" cx="{x(time):.2f}%" cy="{heights[name]:.1f}" r="5"/>'
        )
    parts += [_tick(x(value), HEIGHT, f"{value:g}") for value in _ticks(0, slowest)]
    same = [name for name, (_, value) in points.items() if value is None]
    left = [(y(equal), "equal", "soft"), *_numbers(ticks, y)]
    return _plot(left, parts, _names(report, names, same), [*ticks, equal], y)


def _across(top: float) -> _Scale:
    """Return the scale from values of 0 to `top` to percent, with a little room behind `top`."""
    return lambda value: 96 * value / top


def _up(low: float, top: float) -> _Scale:
    """Return the scale from values of `low` to `top` to pixels from the foot up."""
    return lambda value: HEIGHT - (value - low) / (top - low) * (HEIGHT - 12)


def _ticks(low: float, top: float) -> list[float]:
    """Return three to eight round numbers. The first is `low` or a little less.

    The last is `top` or a little more; from 0 a little less, since such a scale ends at `top`.
    """
    spread = max(top - low, abs(top) / 100, 1e-9)
    unit = 10.0 ** math.floor(math.log10(spread))
    step = next(unit * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2) if spread / (unit * factor) <= 6)
    first = math.floor(low / step + 1e-9)
    last = math.floor(top / step + 1e-9) if low == 0 else max(first + 1, math.ceil(top / step - 1e-9))
    return [round(step * index, 10) for index in range(first, last + 1)]


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


def _numbers(ticks: Sequence[float], y: _Scale) -> _Labels:
    return [(y(tick), f"{tick:g}", "soft") for tick in reversed(ticks)]


def _names(report: Report, heights: Mapping[str, float], equal: Collection[str] = ()) -> _Labels:
    """Return the labels of subjects at `heights`; those in `equal` say so."""
    return [
        (height, f"{name} (equal)" if name in equal else name, _colour(report, name))
        for name, height in heights.items()
    ]


def _rows(names: Sequence[str], parts: Sequence[str], x: _Scale, top: float) -> str:
    """Return a plot with a row a subject above its scale."""
    height, ticks = ROW * len(names), _ticks(0, top)
    grid = [_line("grid", x(tick), 0, x(tick), height) for tick in ticks]
    marks = [_tick(x(tick), height, f"{tick:g}") for tick in ticks]
    labels = [(ROW * (row + 0.5), name, "") for row, name in enumerate(names)]
    return _columns(_column(labels, "left"), _svg([*grid, *parts, *marks], height + _FOOT), "")


def _plot(left: _Labels, parts: Sequence[str], right: _Labels, ticks: Sequence[float], y: _Scale) -> str:
    """Return a plot with a grid at `ticks` and columns of labels on both sides."""
    grid = [_line("grid", 0, y(tick), 100, y(tick)) for tick in ticks]
    svg = _svg([*grid, *parts], HEIGHT + _FOOT)
    return _columns(_column(left, "left"), svg, _column(right, "right"))


def _columns(left: str, svg: str, right: str) -> str:
    return f'<div class="scroll"><div class="plot">{left}{svg}{right}</div></div>'


def _column(labels: _Labels, kind: str) -> str:
    """Return labels one below the other, each at its height; the column is as wide as the widest."""
    parts, end = [], 0.0
    for middle, text, colour in labels:
        above = middle - LINE / 2 - end
        parts.append(f'<div class="{colour}" style="margin-top:{above:.1f}px">{html_text(text)}</div>')
        end = middle + LINE / 2
    return f'<div class="{kind}">{"".join(parts)}</div>'


def _tick(x: float, foot: float, label: str) -> str:
    return f'<text class="soft" x="{x:.2f}%" y="{foot + 17}" text-anchor="middle">{label}</text>'


def _line(kind: str, x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="{kind}" x1="{x:.2f}%" y1="{y:.1f}" x2="{to_x:.2f}%" y2="{to_y:.1f}"/>'


def _colour(report: Report, name: str) -> str:
    return f"c{list(report.subjects).index(name) % COLOURS}"


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg height="{height}" role="img">{"".join(parts)}</svg>'
