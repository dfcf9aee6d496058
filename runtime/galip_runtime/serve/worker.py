"""A process that serves: uvicorn with our limits, signals and end."""

import asyncio
import logging
import math
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from types import FrameType

import uvicorn

from galip_runtime import console
from galip_runtime.batching.batcher import Batcher
from galip_runtime.command_line import INTERRUPTED
from galip_runtime.errors import GalipError
from galip_runtime.serve import logs
from galip_runtime.serve.connections import KEEP_ALIVE_SECONDS, Connection, Waiting, most_connections
from galip_runtime.serve.listening import refusal
from galip_runtime.serve.security import reload_keys
from galip_runtime.serve.service import Service, load_model
from galip_runtime.serve.settings import ServeSettings
from galip_runtime.signals import HANGUP, STOP, handled

__all__ = ["serve", "work"]

_LOOK_SECONDS, _QUIET_LOOKS = 0.02, 3
"""how often to look whether all is read that was sent before the signal; how often in a row it has to be"""
_MOST_SETTLE_SECONDS = 5.0
"""for that, where more and more comes"""
_ANSWER_SECONDS = 2.0
"""after the grace, to tell those whose pictures are not there"""
_LATE_SECONDS = 10.0
"""after the grace, for what cannot be interrupted"""
_log = logging.getLogger("galip_runtime.serve")


def serve(
    settings: ServeSettings,
    sockets: list[socket.socket],
    on_ready: Callable[[], None],
    pipe: Pipe | None = None,
) -> int:
    """Serve on the bound `sockets` in this process until a signal stops it; return the exit code.

    `on_ready` is called once it listens. `pipe`: of a worker, to the process that decides when to stop; how
    often that, or anybody, says so does not matter then.

    Raises like `load`, and UsageError if another program listens there by now.
    """
    from galip_runtime.serve.app import create_app

    model = load_model(settings)
    app = create_app(settings, model)
    config = uvicorn.Config(
        app,
        http=Connection.limited(Waiting(most_connections())),
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


async def _close(batcher: Batcher, grace: float) -> None:
    """Give up what waits in the queue when the grace is over."""
    await asyncio.sleep(grace)
    await batcher.aclose(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which ends in order with exit code 0 and loses no request that it was sent before."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
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
        handlers = dict.fromkeys(STOP, self._told_to_stop) | dict.fromkeys(HANGUP, self._told_to_reload)
        with handled(handlers):
            if self._is_worker and HANGUP:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, HANGUP)  # the supervisor had blocked it
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and wait for what was accepted, at most the grace."""
        grace, batcher = self._service.settings.grace, self._service.batcher
        _log.info("stopping: what was accepted has %g seconds", grace)
        late = threading.Timer(grace + _LATE_SECONDS, self._leave, ["its work cannot be interrupted"])
        late.daemon = True
        late.start()
        await self._read_what_was_sent(sockets or [])
        giving_up = asyncio.create_task(_close(batcher, grace)) if batcher is not None else None
        await super().shutdown(sockets)
        if giving_up is not None:
            giving_up.cancel()
        late.cancel()
        _log.info("stopped")

    async def _read_what_was_sent(self, sockets: list[socket.socket]) -> None:
        """Wait until every connection is accepted and read that came before the signal, and perhaps more."""
        loop = asyncio.get_running_loop()
        deadline, quiet = loop.time() + _MOST_SETTLE_SECONDS, 0
        while quiet < _QUIET_LOOKS and loop.time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            quiet = 0 if self._something_waits(sockets) else quiet + 1

    def _something_waits(self, sockets: list[socket.socket]) -> bool:
        """Return whether a connection is not accepted yet, or the data of an idle one is not read."""
        idle = [each for each in self.server_state.connections if getattr(each, "is_idle", False)]
        transports = [each.transport for each in idle if not each.transport.is_closing()]
        descriptors = {transport.get_extra_info("socket").fileno() for transport in transports}
        descriptors |= {listening.fileno() for listening in sockets}
        with selectors.DefaultSelector() as selector:
            for descriptor in descriptors - {-1}:
                selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(0))

    def stop(self) -> None:
        """Begin to end. May be called from any thread, and more than once."""
        self.should_exit = self._service.draining = True

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._is_worker and number == signal.SIGINT:
            return  # Ctrl-C reaches all processes of a terminal, and the supervisor passes it on
        if self.should_exit and not self._is_worker:
            self._leave("a second signal")
        self.stop()

    def _told_to_reload(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(reload_keys)

    def _leave(self, reason: str) -> None:
        """End the process at once."""
        os.write(2, f"galip: stopped at once ({reason}); unanswered requests are lost\n".encode())
        os._exit(INTERRUPTED)
