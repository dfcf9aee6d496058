"""What a report says in sentences: headlines, warnings, notes, and the machine in one line."""

from __future__ import annotations

from collections.abc import Sequence

from galip_bench.formatting import format_decibels, peak_mb, pictures_of, stage_seconds
from galip_bench.report import Report, SubjectReport
from galip_bench.subjects import is_bundle

__all__ = ["headlines", "machine_line", "notes", "warnings"]

_SHOWN_VERSIONS = (
    "torch", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino", "tensorrt",
)  # fmt: skip


def headlines(report: Report) -> list[str]:
    """Return a sentence about each bundle, with the figures that most people look for."""
    batch, reference = report.config.batch[0], report.subjects[report.reference]
    lines = []
    for name, subject in report.subjects.items():
        if not is_bundle(name) or not subject.latency:
            continue
        ratio = subject.latency[str(batch)].ratio
        low, high = ratio.rerun_interval_95 or ratio.interval_95
        share = f"{ratio.median:.2f} ({low:.2f}–{high:.2f})"
        parts = [f"{name}: {pictures_of(batch)} in {share} of {report.reference}'s time"]
        if subject.fresh and reference.fresh:
            parts += _cold_start(subject, reference)
        if parity := subject.parity:
            decibels = format_decibels(parity.psnr_min, parity)
            parts.append(f"PSNR {decibels} dB at least" if parity.psnr_min else "equal pictures")
        lines.append("; ".join(parts))
    return lines


def _cold_start(subject: SubjectReport, reference: SubjectReport) -> Sequence[str]:
    own, other = (stage_seconds(each.fresh)["total"] for each in (subject, reference))
    return (
        f"cold start {own:.2f} s instead of {other:.2f}",
        f"peak memory {peak_mb(subject.fresh):.0f} MB instead of {peak_mb(reference.fresh):.0f}",
    )


def warnings(report: Report) -> list[str]:
    """Return what a reader has to know before the tables: what went wrong, and noise."""
    reasons = "; ".join(report.noise.reasons)
    noise = [f"noisy machine: {reasons}. Trust ratios, not times"] if reasons else []
    return [*report.warnings, *noise]


def notes(report: Report) -> list[str]:
    """Return what a reader may want to know beside the tables: machine, what was not measured."""
    lines = [machine_line(report)]
    lines += [f"not measured: {name}: {reason}" for name, reason in report.unavailable.items()]
    if "compiled-fp32" in report.subjects and report.config.cold_starts:
        lines.append(
            "cold starts find files in the system's cache, those of compiled-fp32 its compiler's, too"
        )
    if any("-openvino-" in name for name in report.subjects) and report.config.cold_starts:
        lines.append(
            "cold starts of openvino find the graphs that it compiled when the bundle was first loaded"
        )
    if report.fid and not report.fid.against:
        lines.append("no real pictures were given (--against), so there is no FID against them")
    return lines


def machine_line(report: Report) -> str:
    """Return hardware and versions in a line."""
    machine = report.machine
    parts = [machine.cpu, f"{report.threads} threads of {machine.usable_cores} usable cores"]
    parts += [" ".join(machine.cpu_features)] if machine.cpu_features else []
    if gpu := machine.gpu:
        parts.insert(0, f"{gpu.name} (driver {gpu.driver}, CUDA {gpu.cuda})")
    versions = [f"{name} {machine.versions[name]}" for name in _SHOWN_VERSIONS if name in machine.versions]
    parts += [machine.system, f"Python {machine.python}", *versions]
    if commit := machine.commit:
        parts.append(f"commit {commit[:12]}{' and changes' if commit.endswith('+') else ''}")
    return ", ".join(parts)
