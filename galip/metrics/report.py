"""The report of `galip evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "format_report"]

SCHEMA = 2


@dataclass
class Report:
    """An evaluation's figures and what they rest on, fit for JSON."""

    figures: dict[str, float]
    """The metrics by name."""
    subject: dict[str, Any]
    """What was evaluated: path, kind, pictures, seeds."""
    reference: dict[str, Any]
    """What it was compared with: path, kind, pictures."""
    protocol: dict[str, str]
    """Its name and what it does to pictures."""
    warnings: list[str] = field(default_factory=list)
    """What to keep in mind."""
    seconds: float = 0.0
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def format_report(report: Report) -> list[str]:
    """Return the figures and what they rest on as lines for a terminal."""
    lines = [f"{name:>16}  {value:.4f}" for name, value in report.figures.items()]
    subject, reference = report.subject, report.reference
    lines.append(f"{subject['pictures']} pictures of {subject['path']} ({subject['kind']})")
    number = "an unknown number of" if reference["pictures"] is None else reference["pictures"]
    what = f"{number} of " if reference["kind"] != "captions" else "captions of "
    lines.append(f"against {what}{reference['path']}")
    lines.append(f"protocol {report.protocol['name']}")
    return [*lines, *(f"note: {warning}" for warning in report.warnings)]
