"""Connections with limits: a client that is slow, silent or greedy cannot keep others out.

uvicorn alone limits how long a connection may be idle between two requests, not how long a request may take
to arrive or an answer to leave.
"""

import asyncio
import functools
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

try:
    import resource
except ImportError:  # Windows, which does not limit them so
    resource = None  # type: ignore[assignment]

__all__ = ["Connection", "Waiting", "most_connections"]

REQUEST_SECONDS = 15.0
"""from a connection's beginning, or a request's first byte, to the request's end"""
ANSWER_SECONDS = 60.0
"""from an answer's end to its last byte at the client"""
KEEP_ALIVE_SECONDS = 75
"""between two requests; more than the 60 of nginx: the side that sends the requests should close"""
MOST_CONNECTIONS = 1000
_OWN_FILES = 100
MOST_HEADER_BYTES = 2**16
"""of a request whose header is not complete yet; a prompt in a query string fits many times"""


def _refusal(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()


_TIMEOUT = _refusal("408 Request Timeout")
_TOO_LONG = _refusal("431 Request Header Fields Too Large")
_TOO_MANY = _refusal("503 Service Unavailable")


def most_connections() -> int:
    """Return how many connections this process may have open and still open its own files."""
    if resource is None:
        return MOST_CONNECTIONS
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, allowed - _OWN_FILES))


class Waiting:
    """The connections of a server, and those of them that have no request in progress, oldest first."""

    def __init__(self, most: int) -> None:
        """`most`: how many connections may be open at a time."""
        self.most = most
        self.open: set[Connection] = set()
        self.idle: OrderedDict[Connection, None] = OrderedDict()

    def make_room(self) -> bool:
        """Close the connection idle for longest if there are too many; return whether there is room."""
        if len(self.open) < self.most:
            return True
        if not self.idle:
            return False
        oldest, _ = self.idle.popitem(last=False)
        oldest.abandon()
        return True


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *arguments: Any, waiting: Waiting, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting = waiting
        self._timer: asyncio.TimerHandle | None = None
        self._in_header, self._header_bytes = False, 0

    @classmethod
    def limited(cls, waiting: Waiting) -> Any:
        """Return what uvicorn makes connections with: this class, with the connections it belongs to."""
        return functools.partial(cls, waiting=waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the time for the first request, if there is room."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if not self._waiting.make_room():
            self.transport.write(_TOO_MANY)
            self.transport.close()
            return
        self._waiting.open.add(self)
        self._waiting.idle[self] = None
        self._start(REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        self._waiting.open.discard(self)
        self._waiting.idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, up to the limit of a header."""
        super().data_received(data)
        if self._in_header:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LONG)
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin the time for the request."""
        super().on_message_begin()
        self._in_header, self._header_bytes = True, 0
        if self._timer is None:  # a later request of the connection
            self._start(REQUEST_SECONDS)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._in_header = False
        self._waiting.idle.pop(self, None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the time for the request."""
        self._stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to read the answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._start(ANSWER_SECONDS)
        elif self.cycle.response_complete:  # and no other request was sent along
            self._waiting.idle[self] = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, on which nothing came."""
        super().timeout_keep_alive_handler()
        self._start(ANSWER_SECONDS)

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def abandon(self) -> None:
        """Close the connection, which has no request in progress, at once."""
        self._stop()
        self.transport.abort()

    def _start(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():  # the answer is there, and the client does not read it
            self.transport.abort()
            return
        if self._in_header or (self.cycle is not None and not self.cycle.response_started):
            self.transport.write(_TIMEOUT)
        self._start(ANSWER_SECONDS)
        self.transport.close()
