"""Latency in a process of its own: `python -m galip_bench.launch`, a task as JSON as its argument.

How fast a process is depends on more than its code: where memory came to lie, above all. Rounds are therefore
divided among several processes, each of which loads all subjects anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galip_runtime.errors import ProviderUnavailable

from galip_bench.config import Models

__all__ = ["Launch", "Task", "launch", "main"]


@dataclass(frozen=True)
class Task:
    """What one process measures."""

    checkpoint: str
    bundle: str
    plain_bundle: str
    """Empty: none."""
    subjects: Sequence[str]
    batch: Sequence[int]
    threads: int
    rounds: int
    least_rounds: int
    """That are measured, however long they take."""
    warmup: int
    max_seconds: float
    seed: int
    """First seed of its pictures."""


@dataclass(frozen=True)
class Launch:
    """What it found."""

    samples: dict[str, dict[str, dict[str, list[float]]]]
    """By subject, batch size and phase: seconds of every round."""
    failed: dict[str, str]
    """Subjects without samples, and what went wrong."""
    others: float | None
    """Share of the CPUs' time that went to others meanwhile."""


def launch(task: Task, progress: Callable[[int, int], Any] = lambda done, total: None) -> Launch:
    """Start a process for `task` and wait for it; `progress` counts rounds, those before too.

    Raises `ProviderUnavailable`, with what the process said, where it fails.
    """
    told: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors:  # no pipe: it would fill while the other one is read
        process = subprocess.Popen(
            [sys.executable, "-m", "galip_bench.launch", json.dumps(asdict(task))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
        )  # fmt: skip
        assert process.stdout
        try:
            for line in process.stdout:
                told = json.loads(line)
                if "done" in told:
                    progress(told["done"], task.warmup + task.rounds)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if code or "samples" not in told:
        ended = f"it was ended by signal {-code}" if code < 0 else "nothing"
        last = said[-1] if said else ended
        raise ProviderUnavailable(f"a fresh process that measures latency failed and said: {last}")
    return Launch(told["samples"], told["failed"], told["others"])


def main() -> None:
    """What the process does."""
    from galip_bench.latency import measure_latency
    from galip_bench.machine import Others
    from galip_bench.prompts import PROMPTS
    from galip_bench.subjects import load

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    task = Task(**json.loads(sys.argv[1]))
    plain = Path(task.plain_bundle) if task.plain_bundle else None
    models = Models(Path(task.checkpoint), Path(task.bundle), plain)
    drawers = {name: load(name, models, task.threads) for name in task.subjects}
    others: Others | None = None

    def tell(done: int) -> None:
        nonlocal others
        if done >= task.warmup and others is None:
            others = Others()
        print(json.dumps({"done": done}), file=answers, flush=True)

    tell(0)
    samples, failed = measure_latency(
        drawers,
        PROMPTS,
        batches=task.batch,
        rounds=task.rounds,
        least_rounds=task.least_rounds,
        warmup=task.warmup,
        max_seconds=task.max_seconds,
        seed=task.seed,
        progress=tell,
    )
    found = {"samples": samples, "failed": failed, "others": others.share() if others else None}
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
