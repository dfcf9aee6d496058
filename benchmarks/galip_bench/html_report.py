"""A report as one self-contained HTML file: tables and plots, light and dark, for screen and paper."""

from __future__ import annotations

from collections.abc import Sequence

from galip_bench.formatting import pictures_of
from galip_bench.notes import answer, head, headlines, notes, warnings
from galip_bench.plots import COLOURS, LINE, bars, distributions, html_text, memory, quality, scaling
from galip_bench.report import Report
from galip_bench.tables import tables

__all__ = ["html_report"]

_LIGHT = ("#1f66d6", "#c4561c", "#22874f", "#7d4fd0", "#c23a7c", "#0f8296", "#8d6a1f", "#5f6b7a")
_DARK = ("#6ea8ff", "#f2955c", "#58c98a", "#b493ff", "#f07fb4", "#46c3d8", "#d8b25a", "#9aa7b8")
"""Colours of the subjects, in order. Each has a contrast of at least 4.5 : 1 with its background."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5d6a7b; --line: #d9dfe6; --paper: #ffffff;
  --mark: #1c2530; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #93a1b2; --line: #303a46;
  --paper: #12171d; --mark: #ffffff; DARK } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 980px; padding: 24px 16px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 8px; }
section { margin: 28px 0 0; min-width: 0; }
code { font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
ul { padding-left: 18px; margin: 8px 0; } .notes li { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--paper); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 32px; }
.head { color: var(--soft); font-size: 13px; margin: 0; overflow-wrap: anywhere; }
.answer { font-size: 19px; line-height: 1.35; margin: 14px 0 0; overflow-wrap: anywhere; }
.lines li { overflow-wrap: anywhere; }
.bars { list-style: none; padding: 0; font-size: 14px; } .bars li { margin: 0 0 8px; }
.bars span { display: inline-block; min-width: 190px; max-width: 100%; overflow-wrap: anywhere; }
.bars i { display: block; height: 9px; min-width: 2px; border-radius: 2px; }
.plot { display: grid; grid-template-columns: max-content minmax(140px, 1fr) max-content; gap: 0 8px;
  padding-top: 8px; }
.left, .right { font: 12px/LINEpx system-ui, sans-serif; white-space: nowrap; }
.left { text-align: right; } .left div, .right div { height: LINEpx; } .soft { color: var(--soft); }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg text.soft { fill: var(--soft); }
svg .grid { stroke: var(--line); fill: none; } svg .dot { fill-opacity: .4; }
svg .mark { stroke: var(--mark); stroke-width: 2; }
SUBJECTS svg .path { stroke-width: 2; }
.warning { border-left: 3px solid var(--c1); padding-left: 10px; }
@page { size: A4; margin: 12mm; }
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --paper: #fff; --mark: #000; LIGHT }
  body { padding: 0; max-width: none; font-size: 10px; } h1 { font-size: 16px; }
  h2 { font-size: 11px; margin: 0 0 2px; }
  section { margin-top: 9px; break-inside: avoid; } table { font-size: 9px; } th, td { padding: 1.5px 5px; }
  code, .notes li, .head { font-size: 8.5px; } .answer { font-size: 13px; margin: 6px 0 0; }
  .bars { font-size: 10px; } .bars li { margin: 0 0 3px; } .bars i, svg * { print-color-adjust: exact; }
  .scroll { overflow: visible; }
  th:first-child, td:first-child { position: static; }
  .plots { break-before: page; grid-template-columns: 1fr 1fr; gap: 0 20px; } }
"""


def html_report(report: Report) -> str:
    """Return the text of the file."""
    batch = report.config.batch[0]
    sections = "".join(_section(title, _table(columns, rows)) for title, columns, rows in tables(report))
    banners = "".join(f'<p class="warning">{html_text(warning)}.</p>' for warning in warnings(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>galip bench: {html_text(report.models.checkpoint.name)}</title><style>{_style()}</style>"
        f'</head><body><h1>galip bench</h1><p class="head">{html_text(head(report))}</p>'
        f'<p class="answer">{html_text(answer(report))}.</p>{banners}'
        f"{_section(f'Time for {pictures_of(batch)}, to PNG (median)', bars(report, batch))}"
        f"{_section('Each bundle', _list(headlines(report))) if headlines(report) else ''}"
        f'{sections}<div class="plots">{"".join(_plots(report))}</div>'
        f"<section><h2>Measured on</h2>{_list(notes(report), 'notes')}"
        f"<code>{html_text(report.command)}</code></section></body></html>\n"
    )


def _plots(report: Report) -> list[str]:
    batches = report.config.batch
    plots = [
        _section(f"Every sample, {pictures_of(batch)}, ms", distributions(report, batch)) for batch in batches
    ]
    if len(batches) > 1:
        plots.append(_section("Milliseconds a picture, by pictures at once", scaling(report)))
    if any(subject.fresh for subject in report.subjects.values()):
        plots.append(_section("Peak resident memory, MB", memory(report)))
    if any(subject.parity for subject in report.subjects.values()):
        title = f"PSNR, dB (up is closer) by ms for {pictures_of(batches[0])} (left is faster)"
        plots.append(_section(title, quality(report)))
    return plots


def _style() -> str:
    colours = {
        word: " ".join(f"--c{number}: {colour};" for number, colour in enumerate(theme))
        for word, theme in (("LIGHT", _LIGHT), ("DARK", _DARK))
    }
    colours["SUBJECTS"] = " ".join(
        f"svg .c{number} {{ fill: var(--c{number}); }} svg .path.c{number} {{ stroke: var(--c{number}); }} "
        f".right .c{number} {{ color: var(--c{number}); }} "
        f".bars .c{number} {{ background: var(--c{number}); }}"
        for number in range(COLOURS)
    )
    style = _STYLE.replace("LINEpx", f"{LINE}px")
    for word, rules in colours.items():
        style = style.replace(word, rules)
    return style


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{content}</section>"


def _list(lines: Sequence[str], kind: str = "lines") -> str:
    return (
        f'<ul class="{kind}">{"".join(f"<li>{html_text(line)}</li>" for line in lines)}</ul>' if lines else ""
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
