"""The sockets that a service listens on, bound before the model is loaded."""

import errno
import logging
import os
import socket
from contextlib import ExitStack

from galip_runtime import console
from galip_runtime.errors import UsageError
from galip_runtime.serve.settings import ServeSettings

__all__ = ["announce", "bind", "refusal"]

_log = logging.getLogger("galip_runtime.serve")
_OPEN = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""addresses that stand for all of this machine, and which of them a browser on it can open"""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""what the system says of an address of a family, such as IPv6, that it does not have"""


def bind(settings: ServeSettings) -> list[socket.socket]:
    """Return sockets bound to every address of the host, not listening yet; with port 0 on one free port.

    Raises UsageError if the port is in use or not allowed, or the host is not this machine.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the host {host!r} has no address ({error}): name one of this machine's") from error
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        refused: OSError | None = None
        for family, address in addresses:
            try:
                bound = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                if os.name == "posix":  # elsewhere it lets two programs share a port
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise refusal(settings, error) from error
                refused = error
                continue
            port = bound.getsockname()[1]
            sockets.append(bound)
        if refused is not None and not sockets:
            raise refusal(settings, refused)
        opened.pop_all()
    return sockets


def refusal(settings: ServeSettings, error: OSError) -> UsageError:
    """Return the error for a socket that the system refuses."""
    host, port = settings.host, settings.port
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} on {host} is in use: stop the program that listens there, or choose another with "
            "--port (0: any free one)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"port {port} is not allowed for this user: choose one from 1024 up with --port")
    if error.errno in _NOT_HERE:
        return UsageError(f"{host} is no address of this machine: listen on 127.0.0.1, or 0.0.0.0 for all")
    return UsageError(f"cannot listen on {host}, port {port} ({error.strerror or error})")


def announce(settings: ServeSettings, sockets: list[socket.socket]) -> None:
    """Say that the service is ready, and its URL on this machine."""
    model = "the shipped model" if settings.bundle is None else str(settings.bundle)
    host = _OPEN.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    line = f"serving {model} at http://{host}:{sockets[0].getsockname()[1]}/"
    if settings.log_format == "json":
        _log.info(line)
    else:
        console.message(f"galip: {line} (Ctrl-C ends it)")
