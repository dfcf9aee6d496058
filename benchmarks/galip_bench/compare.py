"""Two reports of the same thing: what changed beyond noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from galip_runtime.errors import UsageError

from galip_bench.summary import bootstrap_medians, launch_medians, student_t

__all__ = ["Change", "compare", "differences", "lost", "other_changes"]

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


def lost(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Subjects that the old report measured and the new one doesn't, with why: a line each."""
    lines = []
    for name, subject in old["subjects"].items():
        after = new["subjects"].get(name)
        if not subject["latency"] or (after and after["latency"]):
            continue
        told = [line for line in new["warnings"] if line.startswith((f"{name}:", f"{name} "))]
        why = new["unavailable"].get(name) or "; ".join(told) or "it was not asked for"
        lines.append(f"{name} is no longer measured: {why}")
    return lines


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
    for name in (name for name in new["subjects"] if name in old["subjects"]):
        before, after = old["subjects"][name], new["subjects"][name]
        for what, values in {
            "peak memory, MB": [_peak(each, "peak_resident_bytes") for each in (before, after)],
            "device memory, MB": [_peak(each, "peak_device_bytes") for each in (before, after)],
            "size on disk, MB": [each["disk_bytes"] for each in (before, after)],
        }.items():
            a, b = values
            if a and b and abs(b - a) > MEMORY * a:
                lines.append(f"{name}: {what}: {a / 1e6:.1f} → {b / 1e6:.1f}")
        lines += [f"{name}: {line}" for line in _changes_of_pictures(before, after)]
    return lines


def _changes_of_pictures(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    parities = [each["parity"] for each in (before, after)]
    if all(parities):
        a, b = (each["not_finite"] for each in parities)
        if a != b:
            yield f"pictures with NaN or infinity: {a} → {b}"
        a, b = (_worst_psnr(each) for each in parities)
        if a != b and not abs(b - a) <= DECIBELS:
            yield f"lowest PSNR, dB: {a:.1f} → {b:.1f}"
    a, b = ((each["fid"] or {}).get("delta_interval_95") for each in (before, after))
    if a and b and (b[0] > a[1] or b[1] < a[0]):
        yield f"change of FID: {a[0]:.3f} to {a[1]:.3f} → {b[0]:.3f} to {b[1]:.3f}"


def _worst_psnr(parity: Mapping[str, Any]) -> float:
    """Infinite of equal pictures, -infinite where none is finite."""
    if parity["psnr_min"] is not None:
        return float(parity["psnr_min"])
    return -math.inf if parity["max_abs"] is None else math.inf


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
    """New median over old, and its 95 % interval: by Welch's t of the launches' medians, in logarithms; by
    bootstrap of the rounds where a report has one launch.
    """
    change = float(np.median(values[1]) / np.median(values[0]))
    if min(len(sizes) for sizes in launches) < 2:
        old, new = (bootstrap_medians(each, seed=seed) for seed, each in enumerate(values))
        low, high = np.quantile(new / old, (0.025, 0.975))
        return change, (float(low), float(high))
    medians = [launch_medians(each, sizes) for each, sizes in zip(values, launches, strict=True)]
    parts = [float(np.var(each, ddof=1)) / len(each) for each in medians]
    if not any(parts):
        return change, (change, change)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(each) - 1) for part, each in zip(parts, medians, strict=True)
    )
    reach = student_t(int(freedom + 1e-9)) * sum(parts) ** 0.5  # at least 1, up to rounding
    return change, (change * float(np.exp(-reach)), change * float(np.exp(reach)))
