"""Latency in a process of its own: `python -m galip_bench.latency_worker`, with its task as JSON.

How fast a process is depends on more than its code: above all on where its memory lies. The rounds are
therefore divided among several processes, and each loads all subjects again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galip_runtime.errors import ProviderUnavailable

from galip_bench.models import Models
from galip_bench.schedule import PATIENCE, Stop

if TYPE_CHECKING:
    from galip.progress import Count
    from galip_bench.latency import Round

__all__ = ["LatencyTask", "WorkerResult", "main", "run_worker"]


@dataclass(frozen=True)
class LatencyTask:
    """What one process measures."""

    checkpoint: str
    bundle: str
    plain_bundle: str
    """Empty: none."""
    subjects: Sequence[str]
    batch: Sequence[int]
    threads: int
    rounds: int
    min_rounds: int
    """Rounds that are measured unless a signal or `end` comes before; one in any case, unless it is 0."""
    warmup: int
    max_seconds: float
    """Rounds end after so many seconds, but not before there are `min_rounds`."""
    seed: int
    """First seed of its pictures."""
    end: float = math.inf
    """Time (seconds since the epoch) after which nothing begins but the first round. `PATIENCE` seconds
    later the process is killed.
    """


@dataclass(frozen=True)
class WorkerResult:
    """What one process measured."""

    samples: dict[str, dict[str, dict[str, list[float]]]]
    """Seconds of every round, by subject, batch size and phase."""
    failed: dict[str, str]
    """Subjects without samples, and what went wrong."""
    others: float | None
    """Share of the CPUs' time that others took meanwhile; None if unknown."""
    cut: bool = False
    """Whether it was killed, because its end was over."""


def run_worker(
    task: LatencyTask, progress: Count = lambda done, total: None, stop: Stop | None = None
) -> WorkerResult:
    """Run `task` in a process and wait for it. `progress` counts rounds, with those of the warm-up.

    If `stop` gets its signal, or the task's end is over, the result is what the process has delivered by
    then: whole rounds.

    Raises `ProviderUnavailable`, with the last line of the process's stderr, if it fails.
    """
    delivery = _Delivery(task.end + PATIENCE, min(task.min_rounds, 1))
    with tempfile.TemporaryFile() as errors:  # not a pipe: it would fill up while stdout is read
        process = subprocess.Popen(
            [sys.executable, "-m", "galip_bench.latency_worker", json.dumps(asdict(task))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
        )  # fmt: skip
        assert process.stdout
        try:
            with (stop or Stop()).hands_over(process), delivery.kills(process):
                for line in process.stdout:
                    answer = json.loads(line)
                    delivery.add(answer)
                    if "done" in answer:
                        progress(answer["done"], task.warmup + task.rounds)
                code = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    was_ended = stop is not None and stop.requested
    if not (delivery.finished or delivery.cut or (was_ended and delivery.rounds)):
        end = f"signal {-code} ended it" if code < 0 else "nothing"
        last = lines[-1] if lines else end
        raise ProviderUnavailable(f"a fresh process that measures latency failed and said: {last}")
    return delivery.result()


class _Delivery:
    """What a process has delivered so far, and its end if it takes too long."""

    def __init__(self, end: float, least: int) -> None:
        """`end`: time (seconds since the epoch) from which on the process is killed, once it has delivered
        `least` rounds.
        """
        self._end, self._least = end, least
        self._process: subprocess.Popen[str] | None = None
        self.rounds: list[dict[str, dict[str, dict[str, float]]]] = []
        self.failed: dict[str, str] = {}
        self.others: float | None = None
        self.finished = self.cut = False

    @contextlib.contextmanager
    def kills(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Kill `process` in the block when its end is over and there are rounds enough."""
        self._process = process
        left = min(self._end - time.time(), threading.TIMEOUT_MAX)
        timer = threading.Timer(max(0.0, left), self._kill_if_due)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def add(self, answer: dict[str, Any]) -> None:
        """Take a line of the process."""
        if "round" in answer:
            self.rounds.append(answer["round"])
        self.failed |= answer.get("failed", {})
        if "others" in answer:
            self.others, self.finished = answer["others"], True
        self._kill_if_due()

    def _kill_if_due(self) -> None:
        if len(self.rounds) >= self._least and not self.finished and time.time() >= self._end:
            assert self._process is not None
            self.cut = True
            self._process.kill()

    def result(self) -> WorkerResult:
        """Return the rounds by subject."""
        samples: dict[str, dict[str, dict[str, list[float]]]] = {}
        for seconds in self.rounds:
            for name, sizes in seconds.items():
                for batch, phases in sizes.items():
                    for phase, value in phases.items():
                        own = samples.setdefault(name, {}).setdefault(batch, {})
                        own.setdefault(phase, []).append(value)
        samples = {name: sizes for name, sizes in samples.items() if name not in self.failed}
        return WorkerResult(samples, self.failed, self.others, self.cut)


def main() -> None:
    """Load the subjects, measure, and print the progress and each round, a line of JSON each."""
    from galip_bench.latency import measure_latency
    from galip_bench.machine import OtherLoad
    from galip_bench.prompts import PROMPTS
    from galip_bench.subjects import load

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    task = LatencyTask(**json.loads(sys.argv[1]))
    plain = Path(task.plain_bundle) if task.plain_bundle else None
    files = Models(Path(task.checkpoint), Path(task.bundle), plain)
    models = {name: load(name, files, task.threads) for name in task.subjects}
    others: OtherLoad | None = None

    def report_progress(done: int) -> None:
        nonlocal others
        if done >= task.warmup and others is None:
            others = OtherLoad()
        print(json.dumps({"done": done}), file=answers, flush=True)

    def report_round(seconds: Round, failed: Mapping[str, str]) -> None:
        print(json.dumps({"round": seconds, "failed": failed}), file=answers, flush=True)

    report_progress(0)
    _, failed = measure_latency(
        models,
        PROMPTS,
        batches=task.batch,
        rounds=task.rounds,
        min_rounds=task.min_rounds,
        warmup=task.warmup,
        max_seconds=task.max_seconds,
        seed=task.seed,
        is_over=lambda: bool(stopped) or time.time() > task.end,
        progress=report_progress,
        on_round=report_round,
    )
    result = {"failed": failed, "others": others.share() if others else None}
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
