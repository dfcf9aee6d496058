"""Several worker processes that share the service's sockets, and the process that watches over them.

uvicorn's own supervisor restarts all workers at SIGHUP, restarts one that cannot start for ever, and does not
say with which error it could not; so this is another.
"""

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from galip_runtime import console
from galip_runtime.command_line import INTERRUPTED
from galip_runtime.errors import GalipError, ProviderUnavailable
from galip_runtime.files import remove_leftovers, staging_folder
from galip_runtime.hardware import usable_cpus
from galip_runtime.serve.listening import announce
from galip_runtime.serve.settings import METRICS_FOLDER, ServeSettings
from galip_runtime.signals import HANGUP, STOP, blocked, handled

__all__ = ["Supervisor"]

_TICK = 0.2  # seconds between looks at the workers
_LATE_SECONDS = 15.0
"""after the grace, until a worker that is still there is killed"""
_LONGEST_PAUSE = 30.0
"""seconds before another try to start a worker"""
_log = logging.getLogger("galip_runtime.serve")


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Pipe
    is_ready: bool = False


class Supervisor:
    """Starts the workers, replaces one that ends, and passes signals on."""

    def __init__(self, settings: ServeSettings, sockets: list[socket.socket]) -> None:
        """`sockets` are bound; the workers begin to listen on them."""
        self._settings, self._sockets = settings, sockets
        threads = settings.threads or max(1, usable_cpus() // settings.workers)
        self._of_worker = replace(settings, threads=threads)
        self._workers: list[_Worker] = []
        self._stops = 0
        self._reload = False
        self._failures, self._next_start = 0, 0.0

    def run(self) -> int:
        """Serve until a signal, and return the exit code. Raises the error of a worker that cannot start."""
        with _metrics_folder(), handled(self._handlers()):
            try:
                self._start_all()
                if not self._stops:
                    announce(self._settings, self._sockets)
                while not self._stops:
                    self._look_after_workers()
                return self._stop()
            finally:
                for worker in self._workers:
                    worker.process.kill()
                for worker in list(self._workers):
                    self._forget(worker)

    def _start_all(self) -> None:
        """Start one worker; when it is ready, the bundle is good, and the others follow."""
        for count in (1, self._settings.workers - 1):
            started = [self._start() for _ in range(count)]
            while not self._stops and not all(worker.is_ready for worker in started):
                for worker in started:
                    self._hear(worker)
                    if not worker.process.is_alive() and not worker.is_ready:
                        raise _early_end(worker.process)
                wait([worker.process.sentinel for worker in started], _TICK)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(self._of_worker, self._sockets, theirs), name="galip-serve"
        )
        with blocked(signal.SIGINT, *HANGUP):  # until it can handle them
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker) -> None:
        """Note that the worker is ready. Raises the error that it could not start with."""
        try:
            while worker.pipe.poll():
                heard = worker.pipe.recv()
                if isinstance(heard, GalipError):
                    raise heard
                worker.is_ready, self._failures = True, 0
        except (EOFError, OSError):
            pass  # it has ended, which its sentinel says, too

    def _look_after_workers(self) -> None:
        wait([worker.process.sentinel for worker in self._workers], _TICK)
        if self._reload:
            self._reload = False
            for worker in self._workers:
                _send(worker.process, signal.SIGHUP)
        for worker in list(self._workers):
            try:
                self._hear(worker)
            except GalipError as error:
                _log.error("a worker could not start: %s", error)
                if len(self._workers) == 1:
                    raise
            if not worker.process.is_alive():
                self._replace(worker)
        if len(self._workers) < self._settings.workers and time.monotonic() >= self._next_start:
            self._start()

    def _replace(self, worker: _Worker) -> None:
        """Forget a worker that has ended; another is started now, or later if it never became ready.

        A worker that was killed while it loaded says nothing against the bundle: the service goes on.
        """
        process = worker.process
        _log.error("worker %s ended (%s); another one takes its place", process.pid, _ending(process))
        self._forget(worker)
        if worker.is_ready:
            return
        pause = min(_LONGEST_PAUSE, 2.0**self._failures)
        self._failures += 1
        self._next_start = time.monotonic() + pause

    def _forget(self, worker: _Worker) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        worker.process.join()
        worker.pipe.close()
        mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        self._workers.remove(worker)

    def _stop(self) -> int:
        """Let the workers end in order."""
        for bound in self._sockets:
            bound.close()  # the last worker to stop accepting closes the port
        for worker in self._workers:
            _send(worker.process, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.grace + _LATE_SECONDS
        while alive := [worker.process.sentinel for worker in self._workers if worker.process.is_alive()]:
            if self._stops > 1:
                console.message("galip: stopped at once (a second signal); unanswered requests are lost")
                return INTERRUPTED
            if time.monotonic() > deadline:
                _log.error("%d workers did not end in time and are killed", len(alive))
                break
            wait(alive, _TICK)
        return 0

    def _handlers(self) -> dict[int, Callable[[int, FrameType | None], None]]:
        return dict.fromkeys(STOP, self._told_to_stop) | dict.fromkeys(HANGUP, self._told_to_reload)

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1

    def _told_to_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True


def _work(settings: ServeSettings, sockets: list[socket.socket], pipe: Pipe) -> None:
    """Run in the worker's process."""
    from galip_runtime.serve.worker import work  # which imports uvicorn: not in the supervisor

    work(settings, sockets, pipe)


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """Have a folder where the workers' counters are, so that each can give the sum of all."""
    temporary = Path(tempfile.gettempdir())
    remove_leftovers(temporary)
    before = os.environ.get(METRICS_FOLDER)
    with staging_folder(temporary) as folder:
        folder.chmod(0o700)
        os.environ[METRICS_FOLDER] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ[METRICS_FOLDER]
            else:
                os.environ[METRICS_FOLDER] = before


def _send(process: SpawnProcess, number: int) -> None:
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)


def _ending(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _early_end(process: SpawnProcess) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"a worker ended before it was ready ({_ending(process)}); the log may say why. Where the memory is "
        "too small, ask for fewer --workers"
    )
