"""A report on a terminal."""

from __future__ import annotations

from galip_runtime.console import escape
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from galip_bench.notes import headlines, notes, warnings
from galip_bench.report import Report
from galip_bench.tables import tables

__all__ = ["terminal_report"]


def terminal_report(report: Report) -> Group:
    """Return the tables and sentences for `rich`."""
    parts: list[RenderableType] = []
    for title, columns, rows in tables(report):
        table = Table(title=_text(title), title_justify="left", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(_text(column), justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in rows:
            table.add_row(*map(_text, row))
        parts += [table, ""]
    lines = (*headlines(report), *notes(report), *warnings(report))  # the last ones stay in sight
    return Group(*parts, *map(_text, lines))


def _text(value: str) -> Text:
    """Return text, not a str: rich would read markup in it."""
    return Text(escape(value))
