"""What the latency workers measured, as parts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from galip_bench.latency import PHASES
from galip_bench.latency_worker import WorkerResult
from galip_bench.report import Latency, MachineNoise
from galip_bench.statistics import ratio_of, relative_spread, summarise
from galip_bench.subjects import REFERENCE

__all__ = ["latencies", "machine_noise", "rounds_by_worker"]

NOISY_SPREAD = 0.10
"""Spread of the reference's times (`relative_spread`) above which a machine counts as noisy."""
NOISY_OTHERS = 0.05
"""Share of the CPUs' time that others took, above which a machine counts as noisy."""


def rounds_by_worker(results: Sequence[WorkerResult], batch: int) -> list[int]:
    """Return how many rounds each worker measured; at any `batch` size as many."""
    return [len(result.samples[REFERENCE][str(batch)]["total"]) for result in results]


def latencies(results: Sequence[WorkerResult], name: str, rounds: Sequence[int]) -> dict[str, Latency]:
    """Return the latency of the subject `name` by batch size. `rounds`: how many each worker measured."""
    return {
        batch: _latency(_joined(results, name, batch), _joined(results, REFERENCE, batch), rounds)
        for batch in results[0].samples[name]
    }


def machine_noise(results: Sequence[WorkerResult]) -> MachineNoise:
    """Judge the machine by the reference's times within a worker, and by the time that others took."""
    spread = max(
        relative_spread(phases["total"])
        for result in results
        for phases in result.samples[REFERENCE].values()
    )
    others = max((result.others for result in results if result.others is not None), default=None)
    reasons = []
    if spread > NOISY_SPREAD:
        reasons.append(f"the reference's times vary by {spread:.0%} (quartiles over median)")
    if others is not None and others > NOISY_OTHERS:
        reasons.append(f"other processes or guests took {others:.0%} of the CPUs' time meanwhile")
    return MachineNoise(bool(reasons), spread, others, reasons)


def _joined(results: Sequence[WorkerResult], name: str, batch: str) -> dict[str, list[float]]:
    """Return the samples of all workers, one worker after another, by phase."""
    return {
        phase: [value for result in results for value in result.samples[name][batch][phase]]
        for phase in results[0].samples[name][batch]
    }


def _latency(
    samples: Mapping[str, list[float]], reference: Mapping[str, list[float]], rounds: Sequence[int]
) -> Latency:
    return Latency(
        seconds={
            phase: summarise(samples[phase], rounds) for phase in (*PHASES, "total") if phase in samples
        },
        ratio=ratio_of(samples["total"], reference["total"], rounds),
        samples={phase: [round(value, 8) for value in values] for phase, values in samples.items()},
    )
