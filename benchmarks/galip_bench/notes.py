"""What a report says in sentences: headlines, warnings, notes, and the machine in one line."""

from __future__ import annotations

from collections.abc import Sequence

from galip_bench.formatting import format_decibels, format_ms, peak_mb, pictures_of, stage_seconds
from galip_bench.report import Report, SubjectReport
from galip_bench.subjects import is_bundle

__all__ = ["answer", "head", "headlines", "machine_line", "notes", "speed_of", "warnings"]

_SHOWN_VERSIONS = (
    "torch", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino", "tensorrt",
)  # fmt: skip


_AS_FAST = 0.98
"""Speed, as a share of the reference's, from which on a subject counts as equally fast."""
_WIDE = 2.0
"""An interval of speeds whose ends differ by this factor says too little: the run should be repeated."""


def head(report: Report) -> str:
    """Return model, date and machine in a line."""
    checkpoint, machine = report.models.checkpoint, report.machine
    day = report.started[:16].replace("T", " ")
    where = [machine.gpu.name] if machine.gpu else []
    where += [machine.cpu, "1 thread" if report.threads == 1 else f"{report.threads} threads"]
    return f"{checkpoint.name} (sha256 {checkpoint.sha256[:12]}…), {day} UTC, {', '.join(where)}"


def headlines(report: Report) -> list[str]:
    """Return a sentence about each bundle, with the figures that most people look for."""
    batch, reference = report.config.batch[0], report.subjects[report.reference]
    lines = []
    for name, subject in report.subjects.items():
        if not is_bundle(name) or not subject.latency:
            continue
        parts = [f"{name}: {pictures_of(batch)} {_compared(report, name, batch)}"]
        if subject.fresh and reference.fresh:
            parts += _cold_start(subject, reference)
        if parity := subject.parity:
            decibels = format_decibels(parity.psnr_min, parity)
            parts.append(f"PSNR {decibels} dB at least" if parity.psnr_min else "equal pictures")
        lines.append("; ".join(parts))
    return lines


def answer(report: Report) -> str:
    """Return what most people want to know: which bundle is the fastest, and by how much."""
    batch = report.config.batch[0]
    times = {
        name: subject.latency[str(batch)].seconds["total"].p50
        for name, subject in report.subjects.items()
        if is_bundle(name) and subject.latency
    }
    if not times:
        return f"No bundle was measured, only {', '.join(report.subjects)}"
    name = min(times, key=lambda each: times[each])
    own, theirs = (format_ms(each) for each in (times[name], _seconds(report, report.reference, batch)))
    return (
        f"{name}, the fastest way to run the bundle here, is {_compared(report, name, batch)}. "
        f"It takes {own} ms for {pictures_of(batch)}, PyTorch {theirs}"
    )


def speed_of(report: Report, name: str, batch: int) -> str:
    """Return how much faster a subject is than the reference: `1.6× faster`, `as fast`, `2.1× slower`."""
    speed = 1 / report.subjects[name].latency[str(batch)].ratio.median
    if _AS_FAST < speed < 1 / _AS_FAST:
        return "as fast"
    return f"{_times(speed)}× faster" if speed > 1 else f"{_times(1 / speed)}× slower"


def _compared(report: Report, name: str, batch: int) -> str:
    """Return a subject's speed beside the reference's, and where to expect that of another run."""
    ratio = report.subjects[name].latency[str(batch)].ratio
    speed, reference = speed_of(report, name, batch), report.reference
    low, high = sorted(1 / bound for bound in ratio.rerun_interval_95 or ratio.interval_95)
    if ratio.median > 1 and not speed.endswith("fast"):
        low, high = 1 / high, 1 / low
    between = f"{_times(low)} to {_times(high)}×"
    text = f"{speed} {'as' if speed == 'as fast' else 'than'} {reference}; {between}"
    if report.noise.noisy:
        return f"{text} on this noisy machine, repeat it"
    if ratio.rerun_interval_95 is None:
        return f"{text} within this one process"
    return f"{text} in another run" + (", repeat it" if high > _WIDE * low else "")


def _seconds(report: Report, name: str, batch: int) -> float:
    return report.subjects[name].latency[str(batch)].seconds["total"].p50


def _times(factor: float) -> str:
    """Return a factor with two or three digits: 1.70, 5, 16."""
    return f"{factor:.2f}" if factor < 1.995 else f"{factor:.{int(factor < 10)}f}".removesuffix(".0")


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
    lines += [
        f"{name} computes its generation blocks with galip-kernels {kernels['version']}, {kernels['target']}"
        for name, subject in report.subjects.items()
        if (kernels := subject.info.get("kernels")) and kernels["target"]
    ]
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
