"""A process that serves: uvicorn with our limits, signals and end."""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from galip_runtime import console
from galip_runtime.errors import GalipError
from galip_runtime.loading import load
from galip_runtime.serve import logs
from galip_runtime.serve.connections import KEEP_ALIVE_SECONDS, Connection, Waiting
from galip_runtime.serve.listening import refusal
from galip_runtime.serve.security import reload_keys
from galip_runtime.serve.settings import ServeSettings

if TYPE_CHECKING:
    from galip_runtime.serve.service import Service

__all__ = ["serve", "work"]

_SETTLE_SECONDS = 0.2
"""from the signal to the end of accepting: by then all that was sent before the signal has been read"""
_STOPPED_AT_ONCE = 130
_ANSWER_SECONDS = 2.0
"""after the grace, to tell those whose pictures are not there"""
_LATE_SECONDS = 10.0
"""after the grace, for what cannot be interrupted"""
_STOP = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger("galip_runtime.serve")


def serve(
    settings: ServeSettings,
    sockets: list[socket.socket],
    on_ready: Callable[[], None],
    pipe: Pipe | None = None,
) -> int:
    """Serve on the bound `sockets` in this process until it is told to stop; return the exit code.

    `on_ready` is called once it listens. `pipe`: of a worker, to the process that decides when to stop; how
    often that, or anybody, says so does not matter then.

    Raises like `load`, and UsageError if another program listens there by now.
    """
    from galip_runtime.serve.app import create_app

    model = load(
        settings.bundle, device=settings.device, precision=settings.precision, threads=settings.threads
    )
    app = create_app(settings, model)
    config = uvicorn.Config(
        app,
        http=Connection.limited(Waiting()),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.grace + _ANSWER_SECONDS),
    )
    server = _Server(config, app.state.service, on_ready, is_worker=pipe is not None)
    if pipe is not None:
        threading.Thread(target=_watch, args=(pipe, server), daemon=True).start()
    try:
        server.run(sockets)
    except OSError as error:
        if server.started:
            raise
        raise refusal(settings, error) from error
    except SystemExit as error:  # uvicorn's, where the app could not start
        raise GalipError("the service could not start: the log above says why") from error
    return 0


def work(settings: ServeSettings, sockets: list[socket.socket], pipe: Pipe) -> None:
    """Serve as one of several workers, and exit; `pipe` tells that it is ready, or the error that it had."""

    def serve_for_supervisor() -> int:
        logs.configure(settings)
        try:
            return serve(settings, sockets, lambda: pipe.send("ready"), pipe)
        except GalipError as error:
            pipe.send(error)
            return error.exit_code

    sys.exit(console.run(serve_for_supervisor, "galip"))


def _watch(pipe: Pipe, server: "_Server") -> None:
    """Stop when the other end of the pipe is gone: the supervisor was killed."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        server.stop()


class _Server(uvicorn.Server):
    """uvicorn's server, which ends in order with exit code 0 and loses no request that it was sent before."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: "Service",
        on_ready: Callable[[], None],
        *,
        is_worker: bool,
    ) -> None:
        super().__init__(config)
        self._service, self._on_ready, self._is_worker = service, on_ready, is_worker
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while serving. Unlike uvicorn's, this does not raise them again afterwards."""
        handlers: dict[int, Any] = dict.fromkeys(_STOP, self._told_to_stop)
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._told_to_reload
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        if self._is_worker and hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the supervisor had blocked it
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and wait for what was accepted, at most the grace."""
        grace = self._service.settings.grace
        _log.info("stopping: what was accepted has %g seconds", grace)
        late = threading.Timer(grace + _LATE_SECONDS, self._leave, ["its work cannot be interrupted"])
        late.daemon = True
        late.start()
        await asyncio.sleep(_SETTLE_SECONDS)
        batcher = self._service.batcher
        ending = None if batcher is None else asyncio.ensure_future(batcher.aclose(grace))
        await super().shutdown(sockets)
        if ending is not None:
            await ending
        late.cancel()
        _log.info("stopped")

    def stop(self) -> None:
        """Begin to end. May be called from any thread, and more than once."""
        self.should_exit = self._service.draining = True

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._is_worker and number == signal.SIGINT:
            return  # Ctrl-C reaches all processes of a terminal, and the supervisor passes it on
        if self.should_exit and not self._is_worker:
            self._leave("told so twice")
        self.stop()

    def _told_to_reload(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(reload_keys)

    def _leave(self, reason: str) -> None:
        """End the process at once."""
        os.write(2, f"galip: stopped at once ({reason}); unanswered requests are lost\n".encode())
        os._exit(_STOPPED_AT_ONCE)
