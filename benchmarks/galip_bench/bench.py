"""`run`: what each way to make pictures costs on this machine, and whether the picture is still the same."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.drawer import Drawer
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.manifest import read_manifest

from galip_bench import fresh
from galip_bench.latency import PHASES, measure_latency
from galip_bench.machine import describe_machine
from galip_bench.parity import draw_raw, parity_of, side_by_side
from galip_bench.prompts import PROMPTS
from galip_bench.subjects import REFERENCE, choose, subjects
from galip_bench.summary import ratio_of, spread, summarise

__all__ = ["SCHEMA", "BenchConfig", "Report", "from_json", "run"]

SCHEMA = 1
NOISY_SPREAD = 0.10
"""Quartiles' distance over the median of the reference's times above which a machine counts as noisy."""

Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class BenchConfig:
    """What is measured."""

    checkpoint: str
    """The model that eager PyTorch runs."""
    bundle: str
    """What was exported from it."""
    subjects: tuple[str, ...] = ()
    """Names; none: all that this machine can run. The reference is always measured."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Pictures made at once, each size by itself."""
    threads: int | None = None
    """CPU threads; None: all that the process may use."""
    rounds: int = 30
    """In each every subject makes a batch of each size."""
    warmup: int = 3
    """Rounds before those, not counted."""
    cold_starts: int = 3
    """Fresh processes a subject, 0: none; the last one's memory is at the largest batch."""
    pictures: int = 32
    """Pictures compared for parity, made as many at once as `batch` has first; 0: none."""
    seed: int = 0
    """First seed; pictures have others in every round."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value out of range."""
        least = {"rounds": 1, "warmup": 0, "cold_starts": 0, "pictures": 0, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {bound} or more")
        if not self.batch or any(size < 1 for size in self.batch):
            raise UsageError(f"batch is {self.batch}; sizes of 1 or more are right, as 1,4,8")


@dataclass(frozen=True)
class Report:
    """Everything measured, fit for JSON: seconds, bytes, raw samples."""

    subjects: dict[str, Any]
    """By name: `info`, `latency` by batch size, `fresh`, `disk_bytes`, `parity`."""
    unavailable: dict[str, str]
    """Subjects that were not measured, and why."""
    machine: dict[str, Any]
    noise: dict[str, Any]
    """Whether the machine was quiet: `noisy`, and by what."""
    config: dict[str, Any]
    command: str
    reference: str = REFERENCE
    schema: int = SCHEMA
    warnings: list[str] = field(default_factory=list)


def run(config: BenchConfig, *, pictures: Path | None = None, progress: Progress = lambda *_: None) -> Report:
    """Measure. `pictures`: folder that gets each subject's worst pair beside its amplified difference.

    Raises `UsageError` for unknown subjects, `ProviderUnavailable` for named ones that can't be had or gave
    way to another device, `QualityGateFailed` when the reference's own pictures are not finite.
    """
    checkpoint, bundle = Path(config.checkpoint), Path(config.bundle)
    machine = describe_machine()
    known = subjects(checkpoint, bundle, config.threads)
    unavailable = {each.name: each.unavailable for each in known if each.unavailable}
    drawers: dict[str, Drawer] = {}
    chosen = choose(known, config.subjects)
    for number, subject in enumerate(chosen, 1):
        try:
            drawer = subject.load()
            drawer.generate(PROMPTS[0], config.seed)
        except ProviderUnavailable as error:
            if config.subjects or subject.name == REFERENCE:
                raise
            unavailable[subject.name] = str(error)
            continue
        drawers[subject.name] = drawer
        progress("loading", number, len(chosen))
    samples = measure_latency(
        drawers, PROMPTS, batches=config.batch, rounds=config.rounds, warmup=config.warmup,
        seed=config.seed, progress=progress,
    )  # fmt: skip
    measured: dict[str, Any] = {}
    parities = _parities(drawers, config, pictures, progress)
    for name, drawer in drawers.items():
        measured[name] = {
            "info": drawer.info(),
            "latency": {
                str(batch): _latency(samples[name][batch], samples[REFERENCE][batch])
                for batch in config.batch
            },
            "fresh": _fresh(name, config, progress),
            "disk_bytes": _disk(bundle if name.startswith("bundle-") else checkpoint),
            "parity": parities.get(name),
        }
    totals = [samples[REFERENCE][batch]["total"] for batch in config.batch]
    return Report(
        warnings=_warnings(checkpoint, bundle),
        subjects=measured,
        unavailable=unavailable,
        machine=machine,
        noise=_noise(totals, machine),
        config=asdict(config),
        command=shlex.join(sys.argv),
    )


def _warnings(checkpoint: Path, bundle: Path) -> list[str]:
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == read_manifest(bundle).source.sha256:
        return []
    return [f"{bundle} was not exported from {checkpoint}: its pictures can't be the same"]


def _latency(samples: Mapping[str, list[float]], reference: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        "seconds": {phase: asdict(summarise(samples[phase])) for phase in (*PHASES, "total")},
        "ratio": asdict(ratio_of(samples["total"], reference["total"])),
        "samples": dict(samples),
    }


def _fresh(name: str, config: BenchConfig, progress: Progress) -> list[dict[str, Any]]:
    found = []
    for number in range(config.cold_starts):
        last = number == config.cold_starts - 1
        found.append(
            asdict(
                fresh.measure(
                    name,
                    Path(config.checkpoint),
                    Path(config.bundle),
                    prompt=PROMPTS[0],
                    batch=max(config.batch) if last else 1,
                    threads=config.threads,
                )
            )
        )
        progress(f"cold starts of {name}", number + 1, config.cold_starts)
    return found


def _parities(
    drawers: Mapping[str, Drawer], config: BenchConfig, folder: Path | None, progress: Progress
) -> dict[str, Any]:
    if not config.pictures:
        return {}
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(config.pictures)]
    seeds = range(config.seed, config.seed + config.pictures)
    reference = draw_raw(drawers[REFERENCE], prompts, seeds, config.batch[0])
    if not np.isfinite(reference).all():
        raise QualityGateFailed(f"{REFERENCE} itself gives NaN or infinity; nothing can be compared with it")
    found = {}
    for number, (name, drawer) in enumerate(drawers.items(), 1):
        result = reference if name == REFERENCE else draw_raw(drawer, prompts, seeds, config.batch[0])
        parity = parity_of(reference, result)
        found[name] = asdict(parity)
        if folder is not None and parity.worst is not None and name != REFERENCE:
            from galip_runtime.image import save_picture

            folder.mkdir(parents=True, exist_ok=True)
            worst = side_by_side(reference[parity.worst], result[parity.worst])
            save_picture(worst, folder / f"{name}.png")
        progress("comparing pictures", number, len(drawers))
    return found


def _disk(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _noise(totals: Sequence[Sequence[float]], machine: Mapping[str, Any]) -> dict[str, Any]:
    varies = max(spread(samples) for samples in totals)
    load, cores = machine["load_average"], machine["usable_cores"] or os.cpu_count() or 1
    reasons = []
    if varies > NOISY_SPREAD:
        reasons.append(f"the reference's times vary by {varies:.0%} (quartiles over median)")
    if load is not None and load > 0.5 * cores:
        reasons.append(f"the load average was {load:.1f} on {cores} cores before anything was measured")
    return {"noisy": bool(reasons), "spread": varies, "reasons": reasons}


def from_json(document: Mapping[str, Any]) -> BenchConfig:
    """The config of a report that `read_report` gave, to run it again."""
    names = {each.name for each in fields(BenchConfig)}
    values: dict[str, Any] = {key: value for key, value in document["config"].items() if key in names}
    return BenchConfig(**{key: _plain(value) for key, value in values.items()})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
