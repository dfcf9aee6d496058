"""What is noted of a service while something happens to it: its memory, and how long answers take."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from statistics import median

import httpx

from studies.serving.servers import Server

__all__ = ["MemoryWatch", "Probe", "percentiles"]


class MemoryWatch:
    """The bytes that a service has in memory during a block, twice a second."""

    def __init__(self, server: Server) -> None:
        self._server, self._ended = server, threading.Event()
        self._samples: list[int] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._samples.append(self._server.memory())

    def __enter__(self) -> MemoryWatch:
        self.before = self._server.memory()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        part = max(1, len(self._samples) // 4)
        self.early, self.late = median(self._samples[part : 2 * part]), median(self._samples[-part:])
        self.most = max(self._samples)


class Probe:
    """One more caller, without hurry, who notes how long answers take."""

    def __init__(self, url: str) -> None:
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self._url, self._ended = url, threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            seed = 2**62
            while not self._ended.wait(0.02):
                seed += 1
                start = time.monotonic()
                answer = client.get("/v1/picture", params={"prompt": "a red apple", "seed": seed})
                (self.accepted if answer.status_code == 200 else self.refused).append(
                    time.monotonic() - start
                )

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return count, median, 99th percentile and maximum of `values`."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    return {
        "count": len(ordered),
        "median": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))],
        "most": ordered[-1],
    }
