"""The threads that draw what waits in a `PictureQueue`, a batch at a time."""

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

import numpy as np

from galip_runtime.batching.queue import Job, Picture, PictureQueue
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed
from galip_runtime.forks import call_after_fork

__all__ = ["BatchObserver", "Lanes"]

_log = logging.getLogger("galip_runtime")
_ASSUMED_SECONDS = 0.1  # for a picture, until one is measured
_SMOOTHING = 0.2  # weight of the last batch in the average
_SECONDS_AT_EXIT = 10.0  # for a batch that runs when the interpreter ends


class BatchObserver(Protocol):
    """Is told what happens in a `Batcher`, from several threads. An exception that it raises is logged."""

    def batch_done(
        self, size: int, wait_seconds: list[float], encode_seconds: float, decode_seconds: float
    ) -> object:
        """Called after a batch of `size` pictures; `wait_seconds`: how long each was in the queue."""

    def rejected(self, reason: str) -> object:
        """Called for a call that ends without pictures: queue_full, deadline, cancelled or closed."""

    def failed(self, error: BaseException) -> object:
        """Called for a call that the model failed."""


class Lanes:
    """`count` threads, started by the first call, that take batches and draw them."""

    def __init__(
        self, capacity: int, max_batch: int, max_wait: float, count: int, observer: BatchObserver | None
    ) -> None:
        """`capacity`, `max_batch` and `max_wait`, seconds, as for `PictureQueue`."""
        self.queue = PictureQueue(capacity, max_batch, max_wait, count, self._rejected)
        self.device_error: ProviderUnavailable | None = None
        self._observer = observer
        self._seconds = _ASSUMED_SECONDS
        self._forget_threads()
        call_after_fork(self)
        _alive.add(self)

    def _forget_threads(self) -> None:
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def forked(self) -> None:
        """Start anew in a child process, which has none of the threads."""
        self._forget_threads()
        self.device_error = None
        self.queue.forked()

    def start(self) -> None:
        """Start the threads, unless they run."""
        with self._starting:
            while len(self._threads) < self.queue.lanes:
                name = f"galip lane {len(self._threads)}"
                thread = threading.Thread(target=self._draw_batches, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the threads have ended, at most `timeout` seconds; the queue has to be closed."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._starting:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def seconds_to_wait(self) -> float:
        """Return about how long a picture that comes now would take, in seconds."""
        ahead = self.queue.length + self.queue.running
        return (ahead / self.queue.lanes + 1) * self._seconds

    def _draw_batches(self) -> None:
        while jobs := self.queue.take():
            try:
                self._draw(jobs)
            except BaseException as error:  # whatever it is, nobody may wait for ever
                self._fail(jobs, error)
            finally:
                self.queue.done(jobs)
            del jobs  # an idle thread keeps nobody's pictures or model

    def _draw(self, jobs: list[Job]) -> None:
        """Draw a batch. A picture that is not finite fails its own call alone."""
        try:
            pictures = self._drawn(jobs)
        except QualityGateFailed as error:
            if len(jobs) == 1:
                self._fail(jobs, error)
                return
            for job in jobs:
                if not job.call.future.done():
                    self._draw([job])
            return
        self.device_error = None
        for job, picture in zip(jobs, pictures, strict=True):
            self.queue.deliver(job, picture)

    def _drawn(self, jobs: list[Job]) -> Picture:
        """Return the pictures of a batch, uint8 (N, H, W, 3)."""
        model = jobs[0].call.model
        started = time.monotonic()
        captions = [job.call.request.captions(job.index) for job in jobs]
        vectors = model.encode_cached(np.concatenate(captions))
        ends = np.cumsum([len(rows) for rows in captions])[:-1]
        sentence = [
            job.call.request.sentence(job.index, rows)
            for job, rows in zip(jobs, np.split(vectors, ends), strict=True)
        ]
        noise = [job.call.request.noise[job.index : job.index + 1] for job in jobs]
        encoded = time.monotonic()
        pictures: Picture = model.decode_pictures(np.concatenate(noise), np.concatenate(sentence))
        ended = time.monotonic()
        self._seconds += _SMOOTHING * ((ended - started) / len(jobs) - self._seconds)
        waited = [job.waited for job in jobs]
        if self._observer is not None:
            _tell(self._observer.batch_done, len(jobs), waited, encoded - started, ended - encoded)
        return pictures

    def _fail(self, jobs: list[Job], error: BaseException) -> None:
        """End the calls of `jobs` that have not ended."""
        if isinstance(error, ProviderUnavailable):
            self.device_error = error
        for call in {job.call for job in jobs}:
            if call.fail(error) and self._observer is not None:
                _tell(self._observer.failed, error)

    def _rejected(self, reason: str) -> None:
        if self._observer is not None:
            _tell(self._observer.rejected, reason)


def _tell(method: Callable[..., object], *arguments: object) -> None:
    try:
        method(*arguments)
    except (Exception, SystemExit):  # an observer's bug costs nobody a picture, and no lane its thread
        _log.exception("the batcher's observer failed")


_alive: "weakref.WeakSet[Lanes]" = weakref.WeakSet()


def _end_all() -> None:
    """Let running batches end before the interpreter does: it would kill their threads in native code."""
    lanes = list(_alive)
    for each in lanes:
        each.queue.close()
        each.queue.fail_all("the program ended before the pictures were there")
    for each in lanes:
        each.join(_SECONDS_AT_EXIT)


atexit.register(_end_all)
