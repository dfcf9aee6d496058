"""Sharpness and periodic artefacts of pictures, from their power spectra beside those of real ones.

Blur lacks power at short periods; a checkerboard or plaid has it at periods of 2, 4, 8 or 16 pixels, in peaks
that stand out from the frequencies around them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.errors import UsageError
from numpy.typing import NDArray

__all__ = [
    "PERIODS",
    "compare_spectra",
    "octaves",
    "peaks",
    "plot_spectra",
    "power_spectrum",
    "radial_profile",
]

PERIODS = (2, 4, 8, 16)
"""Pixels, of artefacts: of upsampling, and of CLIP's patches, 8 pixels of the 64 that it sees, 16 of 128."""
SHORTEST_OCTAVES = 2
"""The octaves of periods up to 8 pixels are what counts as fine detail."""
LEAST_SIDE = 64
"""Pixels; in smaller pictures the frequencies beside a peak of 16 pixels are those of the whole thing."""
_LUMA = np.array([0.299, 0.587, 0.114])
_NEIGHBOURS = (-3, -2, 2, 3)
"""Of a peak along a line of the spectrum; those next to it may hold some of it."""

Pictures = NDArray[np.uint8]
Power = NDArray[np.float64]


def power_spectrum(pictures: Pictures) -> Power:
    """Return the mean power of the brightness of pictures uint8 (N, S, S, 3), by frequency (S, S).

    Frequency zero is at [0, 0]; units are squared grey levels (of 255), so that all but that one add up to
    the variance. Raises UsageError if S is not a multiple of 16 from 64 up.
    """
    side = pictures.shape[1]
    if pictures.shape[1:3] != (side, side) or side % PERIODS[-1] or side < LEAST_SIDE:
        raise UsageError(
            f"pictures have {pictures.shape[2]}x{side} pixels; the spectrum's peaks need squares of "
            f"{LEAST_SIDE} pixels or a larger multiple of {PERIODS[-1]}"
        )
    total = np.zeros((side, side))
    for picture in pictures:
        total += np.abs(np.fft.fft2(picture @ _LUMA)) ** 2
    return total / len(pictures) / side**4


def radial_profile(power: Power) -> Power:
    """Return the mean power at distance 1, 2, … S/2 from frequency zero, of power (S, S)."""
    radius = np.rint(_radius(len(power))).astype(int).ravel()
    sums, counts = np.bincount(radius, power.ravel()), np.bincount(radius)
    return (sums / counts)[1 : len(power) // 2 + 1]


def octaves(power: Power) -> dict[int, float]:
    """Return the power in octaves of periods by their shortest period in pixels: 2 to 4, 4 to 8, ….

    The first one includes the corners of the spectrum, where periods are down to the square root of 2.
    """
    side = len(power)
    period = side / np.maximum(_radius(side), 1e-9)
    result = {}
    shortest = 2
    while shortest < side:
        least = 0 if shortest == 2 else shortest
        result[shortest] = float(power[(period > least) & (period <= 2 * shortest)].sum())
        shortest *= 2
    return result


def peaks(power: Power) -> dict[int, float]:
    """Return how far the power stands out at each of `PERIODS`, as a ratio: 1 is not at all.

    Stripes across, stripes down and the checkerboard are three points of the spectrum (two for either
    diagonal). Each is divided by the geometric mean of the points beside it, on its line through frequency
    zero, so that a smooth fall of the power cancels out; the largest of a period's ratios counts.
    """
    side = len(power)
    ratios = {}
    for period in PERIODS:
        steps = side // period
        lines = [(0, 1), (1, 0), (1, 1), (1, -1)]
        ratios[period] = max(
            float(power[y * steps % side, x * steps % side] / _beside(power, steps, y, x)) for y, x in lines
        )
    return ratios


def _beside(power: Power, steps: int, y: int, x: int) -> float:
    side = len(power)
    values = [power[y * (steps + d) % side, x * (steps + d) % side] for d in _NEIGHBOURS]
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-12)))))


def _radius(side: int) -> NDArray[np.float64]:
    frequency = np.fft.fftfreq(side, 1 / side)
    return np.hypot(frequency[:, None], frequency[None])


def compare_spectra(made: Pictures, real: Pictures) -> dict[str, Any]:
    """Compare made pictures with real ones, both uint8 (N, S, S, 3), of the same things; fit for JSON.

    `sharpness`: the share of the power that is at periods up to 8 pixels, made by real; 1 is as sharp.
    `artefacts`: the largest ratio of a peak among the made to the same peak among the real; 1 is none.
    """
    powers = {"made": power_spectrum(made), "real": power_spectrum(real)}
    by_octave = {name: octaves(power) for name, power in powers.items()}
    by_period = {name: peaks(power) for name, power in powers.items()}
    shares = {
        name: sum(list(octave.values())[:SHORTEST_OCTAVES]) / sum(octave.values())
        for name, octave in by_octave.items()
    }
    relative = {period: by_period["made"][period] / by_period["real"][period] for period in PERIODS}
    return {
        "pictures": {"made": len(made), "real": len(real)},
        "sharpness": shares["made"] / shares["real"],
        "artefacts": max(relative.values()),
        "fine_share": shares,
        "octaves": {
            str(shortest): by_octave["made"][shortest] / by_octave["real"][shortest]
            for shortest in by_octave["made"]
        },
        "peaks": {
            name: {str(period): ratio for period, ratio in ratios.items()}
            for name, ratios in by_period.items()
        },
        "profile": {
            name: [float(f"{value:.4g}") for value in radial_profile(power)] for name, power in powers.items()
        },
    }


def plot_spectra(comparison: dict[str, Any], out: Path) -> None:
    """Plot the radial profiles of a comparison to a PNG, over the period in pixels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for name, profile in comparison["profile"].items():
        frequency = np.arange(1, len(profile) + 1) / (2 * len(profile))
        axis.loglog(frequency, profile, label=f"{name} pictures", linewidth=1.2)
    ticks = [1 / period for period in (64, 32, *reversed(PERIODS))]
    axis.set_xticks(ticks, [f"{1 / tick:.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("period, pixels")
    axis.set_ylabel("mean power")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=90)
    pyplot.close(figure)
