"""`run`: what each way to generate pictures costs on this machine, and whether the pictures are the same."""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed
from galip_runtime.hardware import usable_cpus
from galip_runtime.text_to_image import TextToImage

from galip_bench.cold_start import measure_cold_start
from galip_bench.config import BenchConfig
from galip_bench.latency_report import latencies, machine_noise, rounds_by_worker
from galip_bench.latency_worker import LatencyTask, WorkerResult, run_worker
from galip_bench.machine import describe_machine
from galip_bench.models import Models, prepare_models
from galip_bench.parity import ParityStudy
from galip_bench.prompts import PROMPTS
from galip_bench.report import ColdStart, FidParity, Parity, Report, SubjectReport
from galip_bench.schedule import Schedule, Stop, Terminated, TimeIsUp, time_limit
from galip_bench.subjects import REFERENCE, Subject, all_subjects, is_bundle, select

if TYPE_CHECKING:
    from galip.metrics import Inception
    from galip.progress import Count, Progress
    from galip_bench.fid import FidStudy

__all__ = ["run"]

_NOT_REPORTED = ("path", "files", "model", "noise", "source", "dimensions")
"""Keys of a model's `info` that the report leaves out: `Report.models` has the hashes."""

_NO_TIME = "no time was left for it; raise --max-minutes"
_ALWAYS = 2
"""Subjects that are measured whatever the time: the reference and one more."""
_PICTURES_SHARE, _COLD_STARTS_SHARE = 0.4, 0.35
"""Shares of the time that is left at most for the pictures, and then at least for cold starts."""
_CUT_SHARE = 0.5
"""Share of the time after the pictures that no subject's pictures may take."""
_START_SECONDS = 3.0
"""Seconds that a fresh process takes to import PyTorch, where that was not measured."""


def run(
    config: BenchConfig,
    *,
    pictures: Path | None = None,
    progress: Progress = lambda *_: None,
    schedule: Schedule | None = None,
    stop: Stop | None = None,
) -> Report:
    """Measure what `config` says. `pictures`: folder for each subject's worst picture and its difference.

    `schedule` tells how long it still takes. If `stop` gets its signal, the report has what was measured
    before; if nothing was, `Terminated` is raised.

    Raises `UsageError` for unknown subjects, `ProviderUnavailable` for named ones that can't run or that fell
    back to another device, `QualityGateFailed` if the reference's own pictures are not finite, and as
    `prepare_models`.
    """
    schedule, stop = schedule or Schedule(config.max_minutes), stop or Stop()
    with contextlib.ExitStack() as stack:
        with stop.raises():
            models = stack.enter_context(prepare_models(config, progress))
            benchmark = _Benchmark(config, models, pictures, progress, schedule, stop)
        return benchmark.report()


@dataclass(frozen=True)
class _Pictures:
    """What is known of a subject before anything is timed."""

    info: dict[str, Any]
    disk_bytes: int
    parity: Parity | None
    fid: FidParity | None

    def broken(self) -> Parity | FidParity | None:
        """Return what counts pictures with NaN or infinity, if there are any."""
        return next((part for part in (self.fid, self.parity) if part and part.not_finite), None)


class _Benchmark:
    def __init__(
        self,
        config: BenchConfig,
        models: Models,
        pictures: Path | None,
        progress: Progress,
        schedule: Schedule,
        stop: Stop,
    ) -> None:
        self.config, self.models, self.pictures, self.progress = config, models, pictures, progress
        self.schedule, self.stop = schedule, stop
        self.load_seconds: dict[str, float] = {}
        self.threads = config.threads or usable_cpus()
        self.unavailable: dict[str, str] = {}
        self.warnings: list[str] = []
        self.inception = self._inception()

    def report(self) -> Report:
        config, machine = self.config, describe_machine()
        started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        with self.stop.raises():
            selection = self._select()
            fid = self._fid_study()
            subjects = self._compare_pictures(selection, fid)
        results = self._run_workers(self._without_broken(subjects))
        timed = self._without_failed(subjects, results)
        rounds = rounds_by_worker(results, config.batch[0])
        reports = {
            name: SubjectReport(
                **vars(pictures),
                latency=latencies(results, name, rounds) if name in timed else {},
                fresh=self._cold_starts(name) if name in timed else [],
            )
            for name, pictures in subjects.items()
        }
        if self.stop.requested:
            self.warnings.append("the run was stopped by SIGTERM: this is what it had measured by then")
        if not self.models.is_pair:
            self.warnings.append(
                "the bundle was not exported from the checkpoint: its pictures can't be the same"
            )
        return Report(
            subjects=reports,
            unavailable=self.unavailable,
            models=self.models.facts(),
            machine=machine,
            noise=machine_noise(results),
            threads=self.threads,
            launches=rounds,
            fid=fid.settings() if fid else None,
            config=config,
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            started=started,
            seconds=time.monotonic() - start,
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

    def _fid_study(self) -> FidStudy | None:
        if not self.config.fid:
            return None
        from galip_bench.fid import FidStudy

        assert self.inception is not None
        side = read_manifest(self.models.bundle).dimensions.image_height
        return FidStudy(self.config, self.inception, side, self.progress)

    def _select(self) -> list[Subject]:
        subjects = all_subjects(self.models, self.threads)
        selection = select(subjects, self.config.subjects)
        self.unavailable = {subject.name: subject.unavailable for subject in subjects if subject.unavailable}
        return selection

    def _compare_pictures(self, subjects: Sequence[Subject], fid: FidStudy | None) -> dict[str, _Pictures]:
        """Load one subject after another and compare its pictures with the reference's.

        After the reference come bundles, in case that there is no time for all. A subject that takes more
        than its phase has, and half of what is left for the others, is cut.
        """
        config = self.config
        results: dict[str, _Pictures] = {}
        study = ParityStudy(config, self.inception, self.pictures)
        budget, slowest = _PICTURES_SHARE * self.schedule.left(), 0.0
        until = self.schedule.left() - budget
        order = sorted(subjects, key=lambda each: (each.name != REFERENCE, not is_bundle(each.name)))
        for number, subject in enumerate(order):
            if len(results) >= _ALWAYS and self.schedule.left() - slowest < until:
                self.unavailable[subject.name] = _NO_TIME
                continue
            self.progress(f"making pictures with {subject.name}", 0, 1)
            start = time.monotonic()
            limit = self.schedule.left() - until * _CUT_SHARE if len(results) >= _ALWAYS else math.inf
            try:
                with time_limit(limit):
                    model = subject.load()
                    self.load_seconds[subject.name] = time.monotonic() - start
                    parity = study.measure(subject.name, model)
            except TimeIsUp:
                self.unavailable[subject.name] = f"cut after {limit:.0f} s: {_NO_TIME}"
                continue
            except Exception as error:  # any kind: each backend has its own
                if config.subjects or subject.name == REFERENCE:
                    raise
                self.unavailable[subject.name] = f"{type(error).__name__}: {error}"
                continue
            seconds = time.monotonic() - start
            slowest = max(slowest, seconds)
            self._expect(seconds - self.load_seconds[subject.name], len(subjects) - number - 1, len(subjects))
            with self.schedule.not_counted():
                distance = fid.measure(subject.name, model) if fid else None
            results[subject.name] = _Pictures(
                info={key: value for key, value in model.info().items() if key not in _NOT_REPORTED},
                disk_bytes=self._disk_bytes(subject.name, model),
                parity=parity if config.pictures or parity.not_finite else None,
                fid=distance,
            )
        return {each.name: results[each.name] for each in subjects if each.name in results}

    def _expect(self, pictures: float, left: int, subjects: int) -> None:
        """Say how long the run takes, from the seconds that a subject's pictures and loading took."""
        config = self.config
        load = sum(self.load_seconds.values()) / len(self.load_seconds)
        count = max(config.pictures, sum(config.batch))
        round_seconds = subjects * sum(config.batch) * pictures / count
        starts = subjects * config.cold_starts * (_START_SECONDS + load)
        self.schedule.expect(
            pictures=left * (load + pictures),
            rounds=config.launches * (_START_SECONDS + subjects * load)
            + (config.rounds + config.launches * config.warmup) * round_seconds,
            cold_starts=starts,
        )

    def _without_broken(self, subjects: Mapping[str, _Pictures]) -> list[str]:
        """Return the subjects whose pictures are finite, and warn of the others."""
        names = []
        for name, pictures in subjects.items():
            if part := pictures.broken():
                self.warnings.append(
                    f"{name}: {part.not_finite} of {part.pictures} pictures have NaN or infinity; its "
                    "latency is not measured"
                )
            else:
                names.append(name)
        return names

    def _without_failed(self, subjects: Mapping[str, Any], results: Sequence[WorkerResult]) -> list[str]:
        """Return the subjects that every worker could time, and warn of the others.

        Raises `QualityGateFailed` if the reference failed.
        """
        failed = {name: error for result in results for name, error in result.failed.items()}
        if REFERENCE in failed:
            raise QualityGateFailed(f"{REFERENCE} failed while it was timed: {failed[REFERENCE]}")
        self.warnings += [f"{name} failed while it was timed: {error}" for name, error in failed.items()]
        return [name for name in subjects if name in results[0].samples and name not in failed]

    def _run_workers(self, names: Sequence[str]) -> list[WorkerResult]:
        """Time the rounds in one process after another, as far as there is time. Raises `Terminated`."""
        config, schedule = self.config, self.schedule
        results: list[WorkerResult] = []
        load = _START_SECONDS + sum(self.load_seconds.get(name, 0.0) for name in names)
        share = 1.0 if not config.cold_starts else 1 - _COLD_STARTS_SHARE
        after = schedule.left() * (1 - share)  # seconds that stay for cold starts
        borders = [config.rounds * number // config.launches for number in range(config.launches + 1)]
        schedule.expect(pictures=0.0)
        for number, (first, last) in enumerate(itertools.pairwise(borders), 1):
            launches = config.launches - number + 1
            seconds = (schedule.left() - after) / launches
            if results and seconds < load:
                self.warnings.append(f"{launches} of {config.launches} launches were left out: {_NO_TIME}")
                break
            task = LatencyTask(
                checkpoint=str(self.models.checkpoint),
                bundle=str(self.models.bundle),
                plain_bundle=str(self.models.plain_bundle or ""),
                subjects=names,
                batch=config.batch,
                threads=self.threads,
                rounds=last - first,
                min_rounds=0 if results else 1,
                warmup=config.warmup,
                max_seconds=seconds,
                seed=config.seed + number * 1_000_000,
                end=time.time() + seconds,
            )
            what = f"measuring latency, launch {number} of {config.launches}"
            try:
                result = run_worker(task, self._rounds_progress(what, launches, seconds), self.stop)
                if result.cut:
                    self.warnings.append(f"launch {number} of {config.launches} was cut: {_NO_TIME}")
                if result.samples or not result.cut:
                    results.append(result)
            except ProviderUnavailable:
                if not self.stop.requested:
                    raise
            if self.stop.requested:
                break
        if not results:
            raise Terminated
        schedule.expect(rounds=0.0)
        return results

    def _rounds_progress(self, what: str, launches: int, seconds: float) -> Count:
        """Return the progress of a launch, which says how long it and those behind it still take."""
        begun: list[float] = []

        def report(done: int, total: int) -> None:
            begun.append(time.monotonic())
            if done:
                a_round = (begun[-1] - begun[0]) / done
                rest = min(a_round * (total - done), seconds)
                self.schedule.expect(rounds=rest + (launches - 1) * min(a_round * total, seconds))
            self.progress(what, done, total)

        return report

    def _cold_starts(self, name: str) -> list[ColdStart]:
        count = self.config.cold_starts
        results: list[ColdStart] = []
        for number in range(count):
            expected = _START_SECONDS + self.load_seconds.get(name, 0.0)
            if results:
                expected = results[-1].seconds["total"]
            left = self.schedule.left()
            if self.stop.requested:
                break
            if left < expected:
                self._warn_of_cold_starts(name, number)
                break
            batch = max(self.config.batch) if number == count - 1 else 1
            try:
                with self.stop.raises():
                    results.append(
                        measure_cold_start(
                            name,
                            self.models,
                            prompt=PROMPTS[0],
                            batch=batch,
                            threads=self.threads,
                            max_seconds=left,
                        )
                    )
            except Terminated:
                break
            except TimeoutError:
                self._warn_of_cold_starts(name, number)
                break
            except ProviderUnavailable as error:
                self.warnings.append(f"no cold start of {name}: {error}")
                return []
            self.progress(f"cold starts of {name}", number + 1, count)
        return results

    def _warn_of_cold_starts(self, name: str, number: int) -> None:
        self.warnings.append(f"{number} cold starts of {name}, not {self.config.cold_starts}: {_NO_TIME}")

    def _disk_bytes(self, name: str, model: TextToImage) -> int:
        """Return the size of the files that the subject reads."""
        if not is_bundle(name):
            return self.models.checkpoint.stat().st_size
        bundle = Path(model.info()["path"])
        manifest, precisions = read_manifest(bundle), model.info()["precision"]
        graphs = [manifest.graphs[graph][precision].file for graph, precision in precisions.items()]
        sizes = [manifest.files[file].size for file in {*graphs, manifest.tokenizer.file}]
        return sum(sizes) + (bundle / MANIFEST_NAME).stat().st_size
