"""The service's logs, as text or JSON: a line for each request, and errors with the request's id.

Prompts and query strings are logged only where the settings ask for them. Control characters are escaped, so
that no request can write a line of its own.
"""

import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any

from galip_runtime import console
from galip_runtime.serve.settings import ServeSettings

__all__ = ["AccessLog", "configure", "log_error"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_access = logging.getLogger("galip_runtime.serve.access")
_log = logging.getLogger("galip_runtime.serve")
_HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CLIENT_GONE = 499  # nginx's number for a client that left before the answer; no client sees it


def configure(settings: ServeSettings) -> None:
    """Let all of the process's logs go to stderr, one line each, in the settings' format.

    uvicorn's own lines about every start and stop are left out, its warnings and errors are not.
    """
    handler = _Handler()
    handler.setFormatter(_JsonFormatter() if settings.log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(True)
    _log.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)


def log_error(
    request_id: str, error: BaseException, what: str = "a request failed", *, hide: Sequence[str] = ()
) -> None:
    """Log an error with the id of its request and its traceback. `hide`: prompts to leave out of both."""
    fields = {"id": request_id}
    _log.error("%s: %s", what, error, exc_info=error, extra={"fields": fields, "hide": tuple(hide)})


class AccessLog:
    """ASGI middleware: gives each request an id and logs a line about it when it has been answered.

    `scope["state"]["request_id"]` is the id, which the answer has in X-Request-Id; a proxy in front may set
    it. The app may set `scope["state"]["pictures"]` to their number, and `["prompts"]` to a list of texts.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._log_prompts = settings.log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        started, status = time.perf_counter(), _CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                if all(name.lower() != _HEADER for name, _ in headers):
                    headers.append((_HEADER, request_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except BaseException:
            status = 500 if status == _CLIENT_GONE else status
            raise
        finally:
            self._line(scope, status, 1000 * (time.perf_counter() - started))

    def _line(self, scope: Scope, status: int, milliseconds: float) -> None:
        state, client = scope["state"], scope.get("client")
        path = scope["path"]
        if self._log_prompts and scope.get("query_string"):
            path += "?" + scope["query_string"].decode("latin-1")
        fields = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "ms": round(milliseconds, 1),
            "pictures": state.get("pictures", 0),
            "id": state["request_id"],
            "client": client[0] if client else "",
        }
        if self._log_prompts and state.get("prompts"):
            fields["prompts"] = list(state["prompts"])
        _access.info("request", extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _ID.fullmatch(value):
            return bytes(value).decode()
    return secrets.token_hex(8)


class _Handler(logging.Handler):
    """Writes each record as a line to stderr, whatever stderr is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console.message(*self.format(record).split("\n"))
        except Exception:  # as every handler of `logging`: a log that fails must not fail the request
            self.handleError(record)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _message(record: logging.LogRecord) -> str:
    return _without(record, record.getMessage())


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    return _without(record, "".join(traceback.format_exception(*record.exc_info)))


def _without(record: logging.LogRecord, text: str) -> str:
    """Return `text` without what the record hides, however it was quoted."""
    for hidden in sorted(getattr(record, "hide", ()), key=len, reverse=True):
        for form in {hidden, repr(hidden)[1:-1], json.dumps(hidden)[1:-1]} - {""}:
            text = text.replace(form, "(prompt)")
    return text


class _TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info a message, or name=value …`; a traceback's lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_moment(record), record.levelname.lower()]
        if record.name == _access.name:
            words += [f"{name}={_word(value)}" for name, value in _fields(record).items()]
        else:
            words.append(console.escape(_message(record)))
            words += [f"{name}={_word(value)}" for name, value in _fields(record).items()]
        trace = [f"    {console.escape(line)}" for line in _trace(record).splitlines()]
        return "\n".join([" ".join(words), *trace])


class _JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, message, then what the record has."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if trace := _trace(record):
            line["traceback"] = trace
        return json.dumps(line, default=str)


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _word(value: Any) -> str:
    """Return a value without blanks that could pass for the next field's beginning."""
    if isinstance(value, str) and value and re.fullmatch(r"[!#-<>-~]+", value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
