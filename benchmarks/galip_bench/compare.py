"""Two reports of the same thing: what changed beyond noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from galip_runtime.errors import UsageError

from galip_bench.summary import bootstrap_medians

__all__ = ["Change", "compare", "differences", "other_changes"]

MEMORY = 0.05
"""Share by which a peak of memory or a size on disk has to differ to be told."""
DECIBELS = 3.0
"""By how much a PSNR has to differ to be told: the last digits of fp32 differ from machine to machine."""


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


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What both reports measured, in the new one's order; the reference only of equal machines and threads.

    Raises `UsageError` where that is nothing.
    """
    changes = []
    for name, batch in _shared(old, new):
        if name == new["reference"] and not _is_same_machine(old, new):
            continue
        values = [_values(report, name, batch) for report in (old, new)]
        launches = [report["launches"] for report in (old, new)]
        changes.append(Change(name, int(batch), *_change(values, launches)))
    if not changes:
        raise UsageError("the reports have no subject and batch size in common that can be compared")
    return changes


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is not the same about machines, versions, models and configs: a line each."""
    lines = []
    for part in ("machine", "models", "config"):
        before, after = (dict(_flat(report[part])) for report in (old, new))
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                lines.append(f"{part} {key}: {before.get(key)} → {after.get(key)}")
    if old["threads"] != new["threads"]:
        lines.append(f"threads: {old['threads']} → {new['threads']}")
    return lines


def other_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed about memory, size on disk, parity and FID of the subjects in both: a line each."""
    lines = []
    for name in dict.fromkeys(name for name, _ in _shared(old, new)):
        before, after = old["subjects"][name], new["subjects"][name]
        for what, values in {
            "peak memory, MB": [_peak(each, "peak_resident_bytes") for each in (before, after)],
            "device memory, MB": [_peak(each, "peak_device_bytes") for each in (before, after)],
            "size on disk, MB": [each["disk_bytes"] for each in (before, after)],
        }.items():
            a, b = values
            if a and b and abs(b - a) > MEMORY * a:
                lines.append(f"{name}: {what}: {a / 1e6:.1f} → {b / 1e6:.1f}")
        for key, least in (("not_finite", 0.0), ("psnr_p1", DECIBELS)):
            a, b = ((each["parity"] or {}).get(key) for each in (before, after))
            if a is not None and b is not None and abs(b - a) > least:
                lines.append(f"{name}: parity {key}: {a:.4g} → {b:.4g}")
        a, b = ((each["fid"] or {}).get("delta_interval_95") for each in (before, after))
        if a and b and (b[0] > a[1] or b[1] < a[0]):
            lines.append(f"{name}: change of FID: {a[0]:.3f} to {a[1]:.3f} → {b[0]:.3f} to {b[1]:.3f}")
    return lines


def _shared(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Subjects and batch sizes in both."""
    for name, subject in new["subjects"].items():
        before = old["subjects"].get(name)
        for batch in subject["latency"] if before else ():
            if batch in before["latency"]:
                yield name, batch


def _is_same_machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    keys = ("cpu", "usable_cores", "gpu")
    same = all(old["machine"][key] == new["machine"][key] for key in keys)
    return same and bool(old["threads"] == new["threads"])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _peak(subject: Mapping[str, Any], key: str) -> int | None:
    return max((run[key] for run in subject["fresh"] if run[key] is not None), default=None)


def _values(report: Mapping[str, Any], name: str, batch: str) -> np.ndarray:
    def totals(subject: str) -> np.ndarray:
        return np.asarray(report["subjects"][subject]["latency"][batch]["samples"]["total"])

    reference = report["reference"]
    return totals(name) if name == reference else totals(name) / totals(reference)


def _change(
    values: Sequence[np.ndarray], launches: Sequence[Sequence[int]]
) -> tuple[float, tuple[float, float]]:
    """New median over old, and its 95 % interval by bootstrap of both."""
    old, new = (
        bootstrap_medians(each, sizes, seed)
        for seed, (each, sizes) in enumerate(zip(values, launches, strict=True))
    )
    low, high = np.quantile(new / old, (0.025, 0.975))
    return float(np.median(values[1]) / np.median(values[0])), (float(low), float(high))
