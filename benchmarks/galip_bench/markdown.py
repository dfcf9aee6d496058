"""Markdown: tables, lists, and text that shows as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from galip_runtime.console import escape

__all__ = ["markdown_list", "markdown_table", "markdown_text"]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right_align: bool = True) -> str:
    """Return a table of cells that are Markdown (`markdown_text` makes it of any text).

    `right_align`: whether to align all columns but the first to the right, as suits numbers.
    """
    rule = "|---" + ("|--:" if right_align else "|---") * (len(columns) - 1) + "|"
    return "\n".join([_line(columns), rule, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_list(lines: Sequence[str]) -> str:
    """Return a list with a bullet for each line of plain text."""
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def markdown_text(value: object) -> str:
    """Return one line of Markdown that shows `value` as it is: no markup, no table cells, no HTML."""
    shown = re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", escape(value))
    return re.sub(r"^([#+=-])(?=\W|$)", r"\\\1", html.escape(shown, quote=False))
