"""What every request passes before its route: request id, Host, key, size of its body, deadline.

All of it is plain ASGI, so that a route sees at once when its client has gone.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from galip_runtime.serve.problems import Problem, answer, full, server_error
from galip_runtime.serve.security import KeyRing, host_is_allowed
from galip_runtime.serve.service import Service
from galip_runtime.serve.settings import ServeSettings

__all__ = ["Admission", "Envelope", "HostCheck", "KeyCheck", "Limits"]

_log = logging.getLogger("galip_runtime.serve")
_access = logging.getLogger("galip_runtime.serve.access")
_REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,64}")
_DRAWING = {"/v1/images/generations": "POST", "/v1/interpolations": "POST", "/v1/picture": "GET"}
_PUBLIC = ("/healthz", "/readyz", "/docs", "/openapi.json")


class Envelope:
    """Gives each request an id, and each answer headers, a line in the log and a place in the metrics.

    An exception that nothing else has answered becomes status 500; the log has it under the request's id.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self._resource_policy = "cross-origin" if service.settings.cors else "same-site"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self.app(scope, receive, send_more)
        except Exception as error:
            parts = {"request_id": request_id, "prompts": scope["state"].get("prompts")}
            _log.error("a request failed: %r", error, exc_info=error, extra=parts)
            if status:
                raise  # the answer has begun: only the server can break it off
            await answer(server_error(request_id), scope)(scope, receive, send_more)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _add_headers(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Cross-Origin-Resource-Policy", self._resource_policy)
        if "ETag" not in headers:
            headers.setdefault("Cache-Control", "no-store")
        if self.service.draining:
            headers["Connection"] = "close"

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        route = getattr(scope.get("route"), "path", None) or state.get("route") or "other"
        self.service.metrics.request_done(route, status, state.get("problem"))
        if "prompts" in state:
            self.service.metrics.seconds.labels("total").observe(seconds)
        _access.info(
            "%s %s %d %.1f ms",
            scope["method"],
            scope["path"],
            status,
            seconds * 1000,
            extra={
                "request_id": state["request_id"],
                "client": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode("ascii", "replace"),
                "status": status,
                "seconds": seconds,
                "problem": state.get("problem"),
                "pictures": state.get("pictures", 0),
                "prompts": state.get("prompts"),
            },
        )


class HostCheck:
    """Refuses requests for another host, and of other sites' pages where the service is for this machine.

    Such a page could not read the answer, but would have pictures drawn.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self._is_private = settings.api_key_file is None and not settings.insecure and not settings.cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        problem = self._problem(Headers(scope=scope)) if scope["type"] == "http" else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await answer(problem, scope)(scope, receive, send)

    def _problem(self, headers: Headers) -> Problem | None:
        host = headers.get("host")
        if not host_is_allowed(self.settings, host):
            message = (
                f"this service answers for localhost, not for {host or ''!r:.80}; with an API key or "
                "--insecure it answers for every name"
            )
            return Problem(403, message, code="unknown_host")
        is_link = headers.get("sec-fetch-mode") == "navigate"
        if self._is_private and headers.get("sec-fetch-site") == "cross-site" and not is_link:
            message = "pages of other sites may not use this service; --cors ORIGIN allows those of a site"
            return Problem(403, message, code="unknown_origin")
        return None


class KeyCheck:
    """Asks for a key, except for the service's health, its documentation and its page."""

    def __init__(self, app: ASGIApp, keys: KeyRing, is_page: Callable[[str], bool]) -> None:
        """`is_page(path)`: whether a path belongs to the page's static files."""
        self.app, self.keys, self.is_page = app, keys, is_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and not self._is_public(_route_path(scope)):
            scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self.keys.accepts(token.strip()):
                message = "this API key is unknown" if token else "there is no API key"
                problem = Problem(
                    401,
                    f"{message}; send the header Authorization: Bearer KEY",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await answer(problem, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_public(self, path: str) -> bool:
        return path in _PUBLIC or path.startswith("/docs/") or self.is_page(path)


def _route_path(scope: Scope) -> str:
    """Return the path that routes see: without the prefix at which another app or a proxy has this one.

    With a prefix such as /docs, everything would pass for documentation otherwise.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    rest = path.removeprefix(root)
    return rest if rest != path and (not rest or rest.startswith("/")) else path


class Admission:
    """Refuses requests for pictures while the queue is full, before anything of them is read.

    Under overload most requests end here: what they cost is taken from those that are drawn.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        batcher = self.service.batcher
        is_full = batcher is not None and batcher.length >= batcher.capacity
        if batcher is None or not is_full or scope["type"] != "http" or not _draws(scope):
            await self.app(scope, receive, send)
            return
        scope["state"]["route"] = _route_path(scope)
        problem = full(f"all {batcher.capacity} places of the queue are taken", batcher.seconds_to_wait())
        await answer(problem, scope)(scope, receive, send)


def _draws(scope: Scope) -> bool:
    """Return whether a request is for pictures, and not for whether a known one has changed."""
    is_drawing = _DRAWING.get(_route_path(scope)) == scope["method"]
    return is_drawing and "if-none-match" not in Headers(scope=scope)


class Limits:
    """Ends a request whose body is too large, or whose answer has not begun when the settings' time is up."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.settings.timeout) as limit:

                async def send_in_time(message: Message) -> None:
                    if limit.expired():
                        await asyncio.sleep(0)  # raises what cancels this task
                    limit.reschedule(None)  # a long file may take as long as it takes
                    await send(message)

                await self.app(scope, self._limited(scope, receive), send_in_time)
        except TimeoutError:
            if not limit.expired():
                raise  # not ours: a file or the model waited for something
            message = f"the pictures were not there within {self.settings.timeout:g} seconds; try again later"
            await answer(Problem(504, message), scope)(scope, receive, send)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` with a limit to the bytes that it may return; beyond it, it raises Problem."""
        most, got = self.settings.max_body, 0
        problem = Problem(413, f"the body has more than {most:,} bytes, which is the limit")
        length = Headers(scope=scope).get("content-length", "")

        async def limited() -> Message:
            nonlocal got
            if length.isdecimal() and int(length) > most:
                raise problem
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise problem
            return message

        return limited
