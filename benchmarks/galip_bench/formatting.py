"""Figures as texts: digits, units, and a dash for what is absent."""

from __future__ import annotations

from collections.abc import Sequence

from galip_bench.report import ColdStart, Parity
from galip_bench.statistics import median

__all__ = [
    "NONE",
    "cpu_seconds",
    "format_decibels",
    "format_mb",
    "format_ms",
    "format_small",
    "peak_mb",
    "pictures_of",
    "stage_seconds",
]

NONE = "–"
"""Stands for what was not measured."""


def pictures_of(batch: int) -> str:
    """Return `1 picture`, `4 pictures at once`."""
    return "1 picture" if batch == 1 else f"{batch} pictures at once"


def format_ms(seconds: float | None) -> str:
    """Return milliseconds with three digits."""
    if seconds is None:
        return NONE
    milliseconds = 1000 * seconds
    decimals = next((n for n, bound in enumerate((100, 10, 1)) if milliseconds >= bound), 3)
    return f"{milliseconds:,.{decimals}f}"


def format_mb(size: int) -> str:
    """Return megabytes of a size in bytes."""
    return f"{size / 1e6:.0f}" if size >= 10e6 else f"{size / 1e6:.1f}"


def format_small(value: float | None) -> str:
    """Return an error in scientific notation."""
    if value is None:
        return NONE
    return f"{value:.1e}" if value else "0"


def format_decibels(value: float | None, parity: Parity) -> str:
    """Return a PSNR out of `parity`, in which None means equal pictures, or none that is finite."""
    if value is not None:
        return f"{value:.1f}"
    return NONE if parity.max_abs is None else "equal"


def stage_seconds(starts: Sequence[ColdStart]) -> dict[str, float]:
    """Return the median seconds of each stage of cold starts."""
    return {stage: median([start.seconds[stage] for start in starts]) for stage in starts[0].seconds}


def cpu_seconds(starts: Sequence[ColdStart]) -> float:
    """Return the median CPU seconds of all threads until the first picture."""
    return median([start.cpu_seconds for start in starts])


def peak_mb(starts: Sequence[ColdStart]) -> float:
    """Return the highest peak of resident memory, in MB."""
    return max(start.peak_resident_bytes for start in starts) / 1e6
