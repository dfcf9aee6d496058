"""Comparison of two reports: what changed by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from galip_runtime.errors import UsageError

from galip_bench.statistics import bootstrap_medians, process_medians, student_t

if TYPE_CHECKING:
    from galip_bench.report import Parity, Report, SubjectReport

__all__ = ["Change", "compare", "differences", "lost", "other_changes"]

_MIN_SIZE_CHANGE = 0.05
"""Share by which a peak of memory or a size on disk has to change to be reported."""
_MIN_PSNR_CHANGE = 3.0
"""dB by which a PSNR has to change to be reported: the last digits of fp32 differ between machines."""


@dataclass(frozen=True)
class Change:
    """Change of one subject's time at one batch size, new over old: above 1 is slower.

    For the reference it is the change of its time, for all others that of their ratio to the reference. A
    machine that is slower today therefore changes only the reference.
    """

    subject: str
    batch: int
    change: float
    interval_95: tuple[float, float]

    def is_slower(self, tolerance: float) -> bool:
        """Return whether it is slower by more than `tolerance`, and slower at all beyond doubt."""
        return self.change > 1 + tolerance and self.interval_95[0] > 1

    def is_faster(self, tolerance: float) -> bool:
        """Return whether it is faster by more than `tolerance`, and faster at all beyond doubt."""
        return self.change < 1 / (1 + tolerance) and self.interval_95[1] < 1


def compare(old: Report, new: Report) -> list[Change]:
    """Return the changes of what both reports measured, in the new one's order.

    The reference is compared only if machine and threads are equal. Raises `UsageError` if nothing is left.
    """
    changes = []
    for name, batch in _shared(old, new):
        if name == new.reference and not _is_same_machine(old, new):
            continue
        values = [_values(report, name, batch) for report in (old, new)]
        launches = [report.launches for report in (old, new)]
        changes.append(Change(name, int(batch), *_change(values, launches)))
    if not changes:
        raise UsageError("the reports have no subject and batch size in common that can be compared")
    return changes


def lost(old: Report, new: Report) -> list[str]:
    """Return a line for each subject that only the old report measured, with the reason."""
    lines = []
    for name, subject in old.subjects.items():
        after = new.subjects.get(name)
        if not subject.latency or (after and after.latency):
            continue
        warnings = [line for line in new.warnings if line.startswith((f"{name}:", f"{name} "))]
        why = new.unavailable.get(name) or "; ".join(warnings) or "it was not asked for"
        lines.append(f"{name} is no longer measured: {why}")
    return lines


def differences(old: Report, new: Report) -> list[str]:
    """Return a line for each thing that differs about machines, versions, models and configs."""
    lines = []
    for part in ("machine", "models", "config"):
        before, after = (dict(_flat(asdict(getattr(report, part)))) for report in (old, new))
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                lines.append(f"{part} {key}: {before.get(key)} → {after.get(key)}")
    if old.threads != new.threads:
        lines.append(f"threads: {old.threads} → {new.threads}")
    return lines


def other_changes(old: Report, new: Report) -> list[str]:
    """Return a line for each change of memory, size on disk, parity and FID of the subjects in both."""
    lines = []
    for name in (name for name in new.subjects if name in old.subjects):
        before, after = old.subjects[name], new.subjects[name]
        for what, a in _sizes(before).items():
            b = _sizes(after)[what]
            if a and b and abs(b - a) > _MIN_SIZE_CHANGE * a:
                lines.append(f"{name}: {what}: {a / 1e6:.1f} → {b / 1e6:.1f}")
        lines += [f"{name}: {line}" for line in _changes_of_pictures(before, after)]
    return lines


def _changes_of_pictures(before: SubjectReport, after: SubjectReport) -> Iterator[str]:
    if before.parity and after.parity:
        broken = before.parity.not_finite, after.parity.not_finite
        if broken[0] != broken[1]:
            yield f"pictures with NaN or infinity: {broken[0]} → {broken[1]}"
        a, b = _min_psnr(before.parity), _min_psnr(after.parity)
        if a != b and not abs(b - a) <= _MIN_PSNR_CHANGE:
            yield f"lowest PSNR, dB: {a:.1f} → {b:.1f}"
    old = before.fid and before.fid.delta_interval_95
    new = after.fid and after.fid.delta_interval_95
    if old and new and (new[0] > old[1] or new[1] < old[0]):
        yield f"change of FID: {old[0]:.3f} to {old[1]:.3f} → {new[0]:.3f} to {new[1]:.3f}"


def _min_psnr(parity: Parity) -> float:
    """Return infinity for equal pictures, minus infinity if none is finite."""
    if parity.psnr_min is not None:
        return parity.psnr_min
    return -math.inf if parity.max_abs is None else math.inf


def _shared(old: Report, new: Report) -> Iterator[tuple[str, str]]:
    """Yield the subjects and batch sizes in both."""
    for name, subject in new.subjects.items():
        before = old.subjects.get(name)
        for batch in subject.latency if before else ():
            if before and batch in before.latency:
                yield name, batch


def _is_same_machine(old: Report, new: Report) -> bool:
    a, b = (
        (report.machine.cpu, report.machine.usable_cores, report.machine.gpu, report.threads)
        for report in (old, new)
    )
    return a == b


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _sizes(subject: SubjectReport) -> dict[str, int | None]:
    """Return sizes in bytes by what they are; None for what was not measured."""
    device = [start.peak_device_bytes for start in subject.fresh]
    return {
        "peak memory, MB": max((start.peak_resident_bytes for start in subject.fresh), default=None),
        "device memory, MB": max((size for size in device if size is not None), default=None),
        "size on disk, MB": subject.disk_bytes,
    }


def _values(report: Report, name: str, batch: str) -> np.ndarray:
    """Return what is compared of each round: the reference's seconds, or a subject's ratio to them."""

    def totals(subject: str) -> np.ndarray:
        return np.asarray(report.subjects[subject].latency[batch].samples["total"])

    return totals(name) if name == report.reference else totals(name) / totals(report.reference)


def _change(
    values: Sequence[np.ndarray], launches: Sequence[Sequence[int]]
) -> tuple[float, tuple[float, float]]:
    """Return the new median over the old, and its 95 % interval.

    By Welch's t of the processes' medians, in logarithms. By bootstrap of the rounds if a report has only one
    process.
    """
    change = float(np.median(values[1]) / np.median(values[0]))
    if min(len(sizes) for sizes in launches) < 2:
        old, new = (bootstrap_medians(rounds, seed=seed) for seed, rounds in enumerate(values))
        low, high = np.quantile(new / old, (0.025, 0.975))
        return change, (float(low), float(high))
    medians = [process_medians(rounds, sizes) for rounds, sizes in zip(values, launches, strict=True)]
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in medians]
    if not any(parts):
        return change, (change, change)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(sample) - 1) for part, sample in zip(parts, medians, strict=True)
    )
    reach = student_t(int(freedom + 1e-9)) * sum(parts) ** 0.5  # at least 1, up to rounding
    return change, (change * float(np.exp(-reach)), change * float(np.exp(reach)))
