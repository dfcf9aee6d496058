"""Latency in a process of its own: `python -m galip_bench.latency_worker`, with its task as JSON.

How fast a process is depends on more than its code: above all on where its memory lies. The rounds are
therefore divided among several processes, each of which loads all subjects anew.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galip_runtime.errors import ProviderUnavailable

from galip_bench.models import Models
from galip_bench.schedule import Stop

if TYPE_CHECKING:
    from galip.progress import Count

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
    """Rounds that are measured unless a signal or `end` comes before."""
    warmup: int
    max_seconds: float
    """Rounds end after so many seconds, but not before there are `min_rounds`."""
    seed: int
    """First seed of its pictures."""
    end: float = math.inf
    """Time (seconds since the epoch) after which nothing begins but the first round."""


@dataclass(frozen=True)
class WorkerResult:
    """What one process measured."""

    samples: dict[str, dict[str, dict[str, list[float]]]]
    """Seconds of every round, by subject, batch size and phase."""
    failed: dict[str, str]
    """Subjects without samples, and what went wrong."""
    others: float | None
    """Share of the CPUs' time that others took meanwhile; None if unknown."""


def run_worker(
    task: LatencyTask, progress: Count = lambda done, total: None, stop: Stop | None = None
) -> WorkerResult:
    """Run `task` in a process and wait for it. `progress` counts rounds, with those of the warm-up.

    If `stop` gets its signal, the result is what the process has measured by then.

    Raises `ProviderUnavailable`, with the last line of the process's stderr, if it fails.
    """
    answer: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors:  # not a pipe: it would fill up while stdout is read
        process = subprocess.Popen(
            [sys.executable, "-m", "galip_bench.latency_worker", json.dumps(asdict(task))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
        )  # fmt: skip
        assert process.stdout
        try:
            with (stop or Stop()).hands_over(process):
                for line in process.stdout:
                    answer = json.loads(line)
                    if "done" in answer:
                        progress(answer["done"], task.warmup + task.rounds)
                code = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if code or "samples" not in answer:
        end = f"signal {-code} ended it" if code < 0 else "nothing"
        last = lines[-1] if lines else end
        raise ProviderUnavailable(f"a fresh process that measures latency failed and said: {last}")
    return WorkerResult(answer["samples"], answer["failed"], answer["others"])


def main() -> None:
    """Load the subjects, measure, and print the progress and the result, a line of JSON each."""
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

    report_progress(0)
    samples, failed = measure_latency(
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
    )
    result = {"samples": samples, "failed": failed, "others": others.share() if others else None}
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
