"""What `/metrics` tells Prometheus: one registry for each app, or the files that worker processes share."""

import os
from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)

from galip_runtime.errors import QualityGateFailed
from galip_runtime.serve.settings import METRICS_FOLDER

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Metrics:
    """The metrics of an app; a `BatchObserver`, too."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        """`queue_length`: how many pictures wait in this process."""
        self.registry = CollectorRegistry()
        self._is_shared = bool(os.environ.get(METRICS_FOLDER))
        self._queue_length = queue_length
        self.seconds = Histogram(
            "galip_request_seconds",
            "Seconds by phase: of a picture in the queue, of a batch (encode, decode), of a request's files "
            "(image_file), and of a request for pictures in all (total)",
            ["phase"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "galip_batch_size", "Pictures in a batch", buckets=_SIZES, registry=self.registry
        )
        self._queue = Gauge(
            "galip_queue_length",
            "Pictures that wait to be drawn",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._pictures = Counter("galip_pictures", "Pictures drawn", registry=self.registry)
        self._not_finite = Counter(
            "galip_not_finite",
            "Calls that ended because the model gave numbers that are not finite",
            registry=self.registry,
        )
        self._rejected = Counter(
            "galip_rejected", "Requests that were refused or given up", ["reason"], registry=self.registry
        )
        self._requests = Counter(
            "galip_requests", "Answered requests", ["route", "status"], registry=self.registry
        )
        if not self._is_shared:
            self._queue.set_function(queue_length)
            ProcessCollector(registry=self.registry)

    def batch_done(
        self, size: int, wait_seconds: Iterable[float], encode_seconds: float, decode_seconds: float
    ) -> None:
        """Count a batch of `size` pictures."""
        self._batch_size.observe(size)
        self._pictures.inc(size)
        for seconds in wait_seconds:
            self.seconds.labels("queue").observe(seconds)
        self.seconds.labels("encode").observe(encode_seconds)
        self.seconds.labels("decode").observe(decode_seconds)
        self.note_queue()

    def rejected(self, reason: str) -> None:
        """Count nothing: `request_done` counts the request's answer, with the same reason."""
        self.note_queue()

    def failed(self, error: BaseException) -> None:
        """Count a call that the model failed."""
        if isinstance(error, QualityGateFailed):
            self._not_finite.inc()

    def request_done(self, route: str, status: int, reason: str | None) -> None:
        """Count an answered request. `reason`: why it was refused; None if it was not."""
        self._requests.labels(route, str(status)).inc()
        if reason is not None:
            self._rejected.labels(reason).inc()

    def note_queue(self) -> None:
        """Write how many pictures wait where other processes read it."""
        if self._is_shared:
            self._queue.set(self._queue_length())

    def text(self) -> bytes:
        """Return all in Prometheus' text format: of every worker process, where they share a folder."""
        if not self._is_shared:
            return generate_latest(self.registry)
        self.note_queue()
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
