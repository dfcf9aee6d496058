"""`run`: what each way to make pictures costs on this machine, and whether the picture is still the same."""

from __future__ import annotations

import functools
import itertools
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed
from galip_runtime.hardware import usable_cpus
from galip_runtime.text_to_image import TextToImage

from galip_bench import fresh
from galip_bench.config import LEAST_ROUNDS, BenchConfig, Models, Progress, prepared
from galip_bench.latency import PHASES
from galip_bench.launch import Launch, Task, launch
from galip_bench.machine import describe_machine
from galip_bench.parity import Original, Parity, draw_raw, side_by_side
from galip_bench.prompts import PROMPTS, prompts
from galip_bench.report import Report
from galip_bench.subjects import REFERENCE, choose, is_bundle, subjects
from galip_bench.summary import ratio_of, spread, summarise

if TYPE_CHECKING:
    from galip.metrics import Inception
    from galip_bench.fid import FidStudy

__all__ = ["run"]

NOISY_SPREAD = 0.10
"""Quartiles' distance over the median of the reference's times above which a machine counts as noisy."""
NOISY_OTHERS = 0.05
"""Share of all CPUs' time that went to others, above which a machine counts as noisy."""

_LEFT_OUT = ("path", "files", "model", "noise", "source", "dimensions")
"""Of a subject's `info`: `Report.models` has the hashes."""


def run(config: BenchConfig, *, pictures: Path | None = None, progress: Progress = lambda *_: None) -> Report:
    """Measure. `pictures`: folder that gets each subject's worst pair beside its amplified difference.

    Raises `UsageError` for unknown subjects, `ProviderUnavailable` for named ones that can't be had or gave
    way to another device, `QualityGateFailed` when the reference's own pictures are not finite, and as
    `prepared`.
    """
    with prepared(config, progress) as models:
        return _Bench(config, models, pictures, progress).report()


class _Bench:
    def __init__(
        self, config: BenchConfig, models: Models, pictures: Path | None, progress: Progress
    ) -> None:
        self.config, self.models, self.pictures, self.progress = config, models, pictures, progress
        self.threads = config.threads or usable_cpus()
        self.unavailable: dict[str, str] = {}
        self.warnings: list[str] = []
        self.inception = self._inception()

    def report(self) -> Report:
        config, machine = self.config, describe_machine()
        started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        found, fid = self._look()
        launches = self._launches(self._fine(found))
        fine = self._lasting(found, launches)
        sizes = [len(each.samples[REFERENCE][str(config.batch[0])]["total"]) for each in launches]
        samples = _joined(launches, fine)
        for name in fine:
            found[name]["latency"] = {
                str(batch): _latency(samples[name][str(batch)], samples[REFERENCE][str(batch)], sizes)
                for batch in config.batch
            }
            found[name]["fresh"] = self._fresh(name)
        if not self.models.is_pair:
            self.warnings.append(
                "the bundle was not exported from the checkpoint: its pictures can't be the same"
            )
        return Report(
            subjects=found,
            unavailable=self.unavailable,
            models=self.models.facts(),
            machine=machine,
            noise=_noise(launches),
            threads=self.threads,
            launches=sizes,
            fid=fid,
            config=asdict(config),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            started=started,
            seconds=time.monotonic() - began,
            warnings=self.warnings,
        )

    def _inception(self) -> Inception | None:
        from galip.metrics import Inception

        if not (self.config.pictures or self.config.fid):
            return None
        try:
            return Inception(Path(self.config.inception) if self.config.inception else None)
        except ProviderUnavailable as error:
            if self.config.fid:
                raise
            self.warnings.append(f"no feature distance: {error}")
            return None

    def _look(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
        """What can be said of each subject that starts without a clock, one after another; and how FID was
        measured.
        """
        config, models, found = self.config, self.models, {}
        known = subjects(models, self.threads)
        chosen = choose(known, config.subjects)
        self.unavailable = {each.name: each.unavailable for each in known if each.unavailable}
        study, parities = self._fid_study(), _Parities(config, self.inception, self.pictures)
        for subject in chosen:
            self.progress(f"making pictures with {subject.name}", 0, 1)
            try:
                drawer = subject.load()
                parity = parities.of(subject.name, drawer)
            except Exception as error:  # of a subject's own kind, whatever it runs on
                if config.subjects or subject.name == REFERENCE:
                    raise
                self.unavailable[subject.name] = f"{type(error).__name__}: {error}"
                continue
            found[subject.name] = {
                "info": {key: value for key, value in drawer.info().items() if key not in _LEFT_OUT},
                "disk_bytes": self._disk(subject.name, drawer),
                "parity": asdict(parity) if config.pictures or parity.not_finite else None,
                "fid": asdict(study.measure(subject.name, drawer)) if study else None,
                "latency": {},
                "fresh": [],
            }
        return found, study.facts() if study else None

    def _fid_study(self) -> FidStudy | None:
        if not self.config.fid:
            return None
        from galip_bench.fid import FidStudy

        assert self.inception is not None
        side = read_manifest(self.models.bundle).dimensions.image_height
        return FidStudy(self.config, self.inception, side, self.progress)

    def _fine(self, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Subjects whose pictures are finite; of the others it is told, and no time taken."""
        fine = []
        for name, subject in found.items():
            seen = [subject[key] for key in ("fid", "parity") if subject[key]]
            if broken := [each for each in seen if each["not_finite"]]:
                self.warnings.append(
                    f"{name}: {broken[0]['not_finite']} of {broken[0]['pictures']} pictures have NaN or "
                    "infinity; its latency is not measured"
                )
            else:
                fine.append(name)
        return fine

    def _lasting(self, found: Mapping[str, Any], launches: Sequence[Launch]) -> list[str]:
        """Subjects that no launch lost; of the others it is told. Raises `QualityGateFailed` for the
        reference.
        """
        failed = {name: why for each in launches for name, why in each.failed.items()}
        if REFERENCE in failed:
            raise QualityGateFailed(f"{REFERENCE} failed while it was timed: {failed[REFERENCE]}")
        self.warnings += [f"{name} failed while it was timed: {why}" for name, why in failed.items()]
        return [name for name in found if name in launches[0].samples and name not in failed]

    def _launches(self, names: Sequence[str]) -> list[Launch]:
        config, found = self.config, []
        borders = [config.rounds * number // config.launches for number in range(config.launches + 1)]
        for number, (first, last) in enumerate(itertools.pairwise(borders), 1):
            task = Task(
                checkpoint=str(self.models.checkpoint),
                bundle=str(self.models.bundle),
                plain_bundle=str(self.models.plain_bundle or ""),
                subjects=names,
                batch=config.batch,
                threads=self.threads,
                rounds=last - first,
                least_rounds=math.ceil(LEAST_ROUNDS / config.launches),
                warmup=config.warmup,
                max_seconds=60 * config.max_minutes / config.launches,
                seed=config.seed + number * 1_000_000,
            )
            what = f"measuring latency, launch {number} of {config.launches}"
            found.append(launch(task, functools.partial(self.progress, what)))
        return found

    def _fresh(self, name: str) -> list[dict[str, Any]]:
        count, found = self.config.cold_starts, []
        for number in range(count):
            try:
                measured = fresh.measure(
                    name,
                    self.models,
                    prompt=PROMPTS[0],
                    batch=max(self.config.batch) if number == count - 1 else 1,
                    threads=self.threads,
                )
            except ProviderUnavailable as error:
                self.warnings.append(f"no cold start of {name}: {error}")
                return []
            found.append(asdict(measured))
            self.progress(f"cold starts of {name}", number + 1, count)
        return found

    def _disk(self, name: str, drawer: TextToImage) -> int:
        """Bytes of the files that the subject reads."""
        if not is_bundle(name):
            return self.models.checkpoint.stat().st_size
        bundle = Path(drawer.info()["path"])
        manifest, precision = read_manifest(bundle), drawer.info()["precision"]
        graphs = [manifest.graphs[graph][chosen].file for graph, chosen in precision.items()]
        sizes = [manifest.files[file].size for file in {*graphs, manifest.tokenizer.file}]
        return sum(sizes) + (bundle / MANIFEST_NAME).stat().st_size


class _Parities:
    """Pictures of one subject after another against the first one's, the reference's."""

    def __init__(self, config: BenchConfig, inception: Inception | None, folder: Path | None) -> None:
        self.inception, self.folder = inception, folder
        self.batch = config.batch
        count = config.pictures or sum(config.batch)  # where none are asked for, whether it works at all
        self.prompts = prompts(count)
        self.seeds = range(config.seed, config.seed + count)
        self.original: Original | None = None

    def of(self, name: str, drawer: TextToImage) -> Parity:
        result = draw_raw(drawer, self.prompts, self.seeds, self.batch)
        is_reference = self.original is None
        if self.original is None:
            if not np.isfinite(result).all():
                raise QualityGateFailed(
                    f"{name} itself gives NaN or infinity; nothing can be compared with it"
                )
            self.original = Original(result, self.inception)
        parity = self.original.parity_of(result)
        if self.folder is not None and parity.worst is not None and not is_reference:
            from galip_runtime.image import save_picture

            self.folder.mkdir(parents=True, exist_ok=True)
            worst = side_by_side(self.original.pictures[parity.worst], result[parity.worst])
            save_picture(worst, self.folder / f"{name}.png")
        return parity


def _joined(launches: Sequence[Launch], names: Sequence[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The samples of all launches, one after another."""
    return {
        name: {
            batch: {
                phase: [value for each in launches for value in each.samples[name][batch][phase]]
                for phase in phases
            }
            for batch, phases in launches[0].samples[name].items()
        }
        for name in names
    }


def _latency(
    samples: Mapping[str, list[float]], reference: Mapping[str, list[float]], launches: Sequence[int]
) -> dict[str, Any]:
    return {
        "seconds": {
            phase: asdict(summarise(samples[phase], launches))
            for phase in (*PHASES, "total")
            if phase in samples
        },
        "ratio": asdict(ratio_of(samples["total"], reference["total"], launches)),
        "samples": {phase: [round(value, 8) for value in values] for phase, values in samples.items()},
    }


def _noise(launches: Sequence[Launch]) -> dict[str, Any]:
    """From the reference's times within a launch, and what others took meanwhile."""
    varies = max(spread(phases["total"]) for each in launches for phases in each.samples[REFERENCE].values())
    taken = max((each.others for each in launches if each.others is not None), default=None)
    reasons = []
    if varies > NOISY_SPREAD:
        reasons.append(f"the reference's times vary by {varies:.0%} (quartiles over median)")
    if taken is not None and taken > NOISY_OTHERS:
        reasons.append(f"other processes or guests took {taken:.0%} of the CPUs' time meanwhile")
    return {"noisy": bool(reasons), "spread": varies, "others": taken, "reasons": reasons}
