"""What `galip serve` withstands: `python -m studies.serving.endurance --out FILE`.

Overload, fuzzing, a worker that is killed, and SIGTERM under load, with the shipped model on loopback.

Found: see `serve_endurance.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_runtime import console
from galip_runtime.errors import GalipError, UsageError

from studies.serving.servers import Server, children, find_wrk, load, serve
from studies.serving.watching import MemoryWatch, Probe, percentiles

__all__ = ["Config", "main", "measure", "table"]

SCHEMA = 1
QUEUE = 64
CALLERS = 16
OVERLOAD = 10
"""Times what the service can do."""
_PAUSE_MS = 250
"""What a caller waits before each request in the overload."""
_SECONDS_A_REQUEST = 0.6
"""About what a request takes in the overload, with that wait."""


@dataclass(frozen=True)
class Config:
    """How long each part takes, in seconds."""

    capacity: float = 15
    overload: float = 120
    fuzz: float = 600
    kill: float = 20
    stop: float = 3


def measure(config: Config) -> dict[str, Any]:
    """Return the result file's content."""
    with serve(None, "--queue", str(QUEUE)) as server:
        overload = _overload(server, config)
        fuzz = _fuzz(server, config.fuzz)
    return {
        "schema": SCHEMA,
        "benchmark": "serve_endurance",
        "config": asdict(config),
        "machine": asdict(describe_machine()),
        "overload": overload,
        "fuzz": fuzz,
        "killed_worker": _killed_worker(config.kill),
        "stopped_under_load": _stopped_under_load(config.stop),
    }


def _overload(server: Server, config: Config) -> dict[str, Any]:
    """Ask for `OVERLOAD` times the pictures that the service can draw."""
    capacity = load(server.url, CALLERS, config.capacity, 1).pictures_per_second
    callers = max(4 * QUEUE, round(OVERLOAD * capacity * _SECONDS_A_REQUEST))
    with MemoryWatch(server) as memory, Probe(server.url) as probe:
        result = load(server.url, callers, config.overload, 10**9, _PAUSE_MS)
    requests = sum(result.statuses.values())
    return {
        "capacity": capacity,
        "callers": callers,
        "requests_per_second": requests / result.seconds,
        "statuses": result.statuses,
        "failed": result.failed,
        "pictures_per_second": result.pictures_per_second,
        "queue": QUEUE,
        "queue_seconds": (QUEUE + CALLERS) / result.pictures_per_second,
        "accepted_seconds": percentiles(probe.accepted),
        "refused_seconds": percentiles(probe.refused),
        "memory_before": memory.before,
        "memory_early": memory.early,
        "memory_late": memory.late,
        "memory_most": memory.most,
    }


def _fuzz(server: Server, seconds: float) -> dict[str, Any]:
    """Let schemathesis ask what the service's OpenAPI description allows, and what it does not."""
    command = Path(sys.executable).with_name("schemathesis")
    if not command.is_file():
        raise UsageError(
            "schemathesis is not installed, which makes up the requests: pip install schemathesis"
        )
    options = [
        "--continue-on-failure",
        "--max-failures",
        "1000",
        "--workers",
        "2",
        "--checks",
        "all",
        "--no-color",
    ]
    before = _statuses(server)
    with MemoryWatch(server) as memory, tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(command), "fuzz", f"{server.url}/openapi.json", "--max-time", f"{seconds:g}", *options],
            capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
    statuses = _statuses(server) - before
    return {
        "seconds": seconds,
        "exit_code": done.returncode,
        "report": done.stdout.splitlines()[-60:],
        "server_errors": sum(count for status, count in statuses.items() if status >= "500"),
        "statuses": dict(sorted(statuses.items())),
        "memory_before": memory.before,
        "memory_early": memory.early,
        "memory_late": memory.late,
        "memory_most": memory.most,
        "ready_afterwards": httpx.get(f"{server.url}/readyz").status_code == 200,
    }


def _statuses(server: Server) -> Counter[str]:
    """Return how many requests were answered with each status, from the service's metrics."""
    counts: Counter[str] = Counter()
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if match := re.fullmatch(r'galip_requests_total\{.*status="(\d+)".*\} ([\d.e+]+)', line):
            counts[match[1]] += int(float(match[2]))
    return counts


def _killed_worker(seconds: float) -> dict[str, Any]:
    """Kill one of two workers while callers ask, who try again after a connection that broke."""
    with serve(None, "--workers", "2", "--threads", "1") as server:
        answers = _ask_meanwhile(server.url, seconds, lambda: _kill_one(server))
        end = time.monotonic() + 60
        while len(_workers(server)) < 2 and time.monotonic() < end:
            time.sleep(0.2)
        return {
            "answers": answers,
            "workers_afterwards": len(_workers(server)),
            "exit_code": server.stop(),
        }


def _workers(server: Server) -> list[int]:
    """Return the numbers of the worker processes: those that have the server's program."""
    return [
        pid
        for pid in children(server.pid)
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _kill_one(server: Server) -> None:
    os.kill(_workers(server)[0], signal.SIGKILL)


def _stopped_under_load(seconds: float) -> dict[str, Any]:
    """Send SIGTERM while callers ask: every request that arrived before has to be answered."""
    with serve(None) as server:
        answers = _ask_meanwhile(server.url, seconds, lambda: os.kill(server.pid, signal.SIGTERM))
        return {"answers": answers, "exit_code": server.wait()}


def _ask_meanwhile(url: str, seconds: float, act: Callable[[], None]) -> dict[str, int]:
    """Let callers ask for `seconds` before `act` and as long after it; count the answers.

    A request whose connection is refused counts as refused, and one that got no answer as lost.
    """
    return asyncio.run(_asked_meanwhile(url, seconds, act))


async def _asked_meanwhile(url: str, seconds: float, act: Callable[[], None]) -> dict[str, int]:
    answers: Counter[str] = Counter()
    ends = time.monotonic() + 2 * seconds

    async def caller(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            seed = number * 1_000_000
            while time.monotonic() < ends:
                seed += 1
                try:
                    answer = await client.get("/v1/picture", params={"prompt": "a red apple", "seed": seed})
                    answers[str(answer.status_code)] += 1
                except httpx.ConnectError:
                    answers["refused"] += 1
                    await asyncio.sleep(0.1)
                except httpx.TransportError:
                    answers["lost"] += 1

    async def actor() -> None:
        await asyncio.sleep(seconds)
        act()

    await asyncio.gather(actor(), *(caller(number) for number in range(CALLERS)))
    return dict(sorted(answers.items()))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of what was done and what happened."""
    rows = [row for result in results for row in _rows(result)]
    return markdown_table(["what", "what happened"], rows, right_align=False)


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    overload, fuzz, killed = result["overload"], result["fuzz"], result["killed_worker"]
    stopped, accepted = result["stopped_under_load"], overload["accepted_seconds"]
    times = overload["requests_per_second"] / overload["capacity"]
    return [
        [
            f"{overload['callers']} callers at once for {result['config']['overload']:.0f} s, {times:.0f} "
            "times the requests that it can answer",
            f"{_counts(overload['statuses'])}; {overload['failed']} without an answer; accepted ones took "
            f"{accepted['median']:.2f} s (median), {accepted['most']:.2f} s at most; memory "
            f"{_growth(overload)}",
        ],
        [
            f"schemathesis, {fuzz['seconds'] / 60:.0f} minutes",
            f"{sum(fuzz['statuses'].values()):,} requests, {fuzz['server_errors']} answered with 5xx; "
            f"memory {_growth(fuzz)}",
        ],
        [
            f"`kill -9` of one of two workers, {CALLERS} callers",
            f"{_counts(killed['answers'])}; {killed['workers_afterwards']} workers afterwards",
        ],
        [
            f"SIGTERM, {CALLERS} callers",
            f"{_counts(stopped['answers'])}; exit code {stopped['exit_code']}",
        ],
    ]


def _counts(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in answers.items())


def _growth(part: Mapping[str, Any]) -> str:
    return (
        f"{part['memory_early'] / 2**20:.0f} MiB early, {part['memory_late'] / 2**20:.0f} MiB late (medians)"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    for name, value in asdict(Config()).items():
        parser.add_argument(f"--{name}", type=float, default=value, metavar="SECONDS")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    try:
        find_wrk()  # before half an hour of work
        result = measure(Config(**arguments))
    except GalipError as error:
        console.failure("studies.serving.endurance", error)
        sys.exit(error.exit_code)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.result(*table([result]).splitlines())


if __name__ == "__main__":
    main()
