"""Two reports of the same thing: what changed beyond noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.errors import FileRefused, UsageError

from galip_bench.bench import SCHEMA
from galip_bench.summary import RESAMPLES

__all__ = ["Change", "compare", "read_report"]


@dataclass(frozen=True)
class Change:
    """Of one subject at one batch size, new over old: above 1 is slower.

    Of the reference it is the times' change, of all others that of their ratios to the reference, so that a
    machine that is slower today changes the reference alone.
    """

    subject: str
    batch: int
    change: float
    interval_95: tuple[float, float]

    def is_slower(self, tolerance: float) -> bool:
        """By more than `tolerance`, and surely slower at all."""
        return self.change > 1 + tolerance and self.interval_95[0] > 1

    def is_faster(self, tolerance: float) -> bool:
        """By more than `tolerance`, and surely faster at all."""
        return self.change < 1 / (1 + tolerance) and self.interval_95[1] < 1


def read_report(file: Path) -> dict[str, Any]:
    """The report that `galip bench --json` wrote. Raises `UsageError` and `FileRefused`."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise FileRefused(f"{file} is no JSON: {error}") from error
    if not isinstance(document, dict) or "subjects" not in document:
        raise FileRefused(f"{file} is no report of galip bench")
    if document.get("schema") != SCHEMA:
        raise FileRefused(f"{file} has schema {document.get('schema')!r}; this galip reads {SCHEMA}")
    return document


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What both reports measured, in the new one's order. Raises `UsageError` where that is nothing."""
    changes = []
    for name, subject in new["subjects"].items():
        before = old["subjects"].get(name)
        for batch in subject["latency"] if before else ():
            if batch in before["latency"]:
                values = [_values(report, name, batch) for report in (old, new)]
                changes.append(Change(name, int(batch), *_change(*values)))
    if not changes:
        raise UsageError("the reports have no subject and batch size in common")
    return changes


def _values(report: Mapping[str, Any], name: str, batch: str) -> np.ndarray:
    def totals(subject: str) -> np.ndarray:
        return np.asarray(report["subjects"][subject]["latency"][batch]["samples"]["total"])

    reference = report["reference"]
    return totals(name) if name == reference else totals(name) / totals(reference)


def _change(old: np.ndarray, new: np.ndarray) -> tuple[float, tuple[float, float]]:
    """New median over old, and its 95 % interval by bootstrap of both."""
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(each, (RESAMPLES, len(each))), axis=1) for each in (old, new)]
    low, high = np.quantile(medians[1] / medians[0], (0.025, 0.975))
    return float(np.median(new) / np.median(old)), (float(low), float(high))
