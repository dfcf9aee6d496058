"""Answers to requests that cannot be served: OpenAI's error format, for every kind of exception.

    {"error": {"message": "…", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}}

An error of the service itself has an `id` beside these, which the log and the header X-Request-Id have, too.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from galip_runtime.errors import (
    DeadlineExceeded,
    GalipError,
    QualityGateFailed,
    ServiceUnavailable,
    UsageError,
)

__all__ = ["ClientGone", "Problem", "add_handlers", "answer", "not_ready", "server_error", "too_many"]

_log = logging.getLogger("galip_runtime.serve")
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "not_ready",
    504: "deadline",
}
_GONE = 499  # nginx's number for a client that closed the connection; nobody reads this answer
_WAIT = 5.0
"""seconds until a service that is not ready may be"""


class Problem(HTTPException):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`message`: for the user; `param`: which parameter is wrong; `code`: by default the status's own."""
        super().__init__(status, message, dict(headers or {}))
        self.code = code or _CODES.get(status, "error")
        self.param = param


class ClientGone(Exception):
    """The client has closed the connection: nobody waits for the answer."""


def not_ready(message: str, retry_after: float | None = None) -> Problem:
    """Return the problem of a service that cannot draw now. `retry_after`: seconds."""
    return Problem(503, message, headers=_retry_after(_WAIT if retry_after is None else retry_after))


def full(message: str, retry_after: float) -> Problem:
    """Return the problem of a full queue. `retry_after`: seconds."""
    return Problem(429, f"the queue is full: {message}. Try again later", headers=_retry_after(retry_after))


def too_many(count: int, name: str, most: int) -> Problem:
    """Return the problem of a parameter that makes `count` pictures where `most` are allowed."""
    message = f"{name} makes {count:,} pictures, and a request makes at most {most:,}"
    return Problem(400, message, param=name)


def server_error(request_id: str, message: str = "something went wrong in the service") -> Problem:
    """Return the problem of a failed service; the log has the details under `request_id`."""
    return Problem(500, f"{message}; its log says more under the id {request_id}")


def answer(problem: Problem, scope: Scope) -> Response:
    """Return the answer to a request that had `problem`, and note its code for the metrics."""
    scope.setdefault("state", {})["problem"] = problem.code
    status = problem.status_code
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": problem.detail, "type": kind, "param": problem.param, "code": problem.code}
    if status == 500:
        error["id"] = scope["state"].get("request_id")
    return JSONResponse({"error": error}, status, problem.headers)


def add_handlers(app: FastAPI) -> None:
    """Let every exception that a route may raise become an answer in the error format."""
    app.add_exception_handler(HTTPException, _of_starlette)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(GalipError, _of_galip)
    app.add_exception_handler(ClientGone, _of_nobody)


async def _of_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return answer(error, request.scope)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        return answer(Problem(404, f"there is no {path:.200} here; /docs lists what there is"), request.scope)
    if error.status_code == 405:
        allowed = ", ".join(_allowed_methods(request))
        message = f"{path} takes {allowed}, not {method:.20}"
        return answer(Problem(405, message, headers={"Allow": allowed}), request.scope)
    return answer(Problem(error.status_code, str(error.detail), headers=error.headers), request.scope)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that the routes of this path take, all of them."""
    methods = set[str]()
    root = request.scope.get("app_root_path", request.scope.get("root_path", ""))  # not that of a mounted app
    for method in ("GET", "HEAD", "POST"):
        scope = {**request.scope, "method": method, "root_path": root}
        matching = [route for route in request.app.routes if route.matches(scope)[0] == Match.FULL]
        if any(method != "POST" or not isinstance(route, Mount) for route in matching):  # of static files
            methods.add(method)
    return sorted(methods)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer(_first_problem(error.errors()), request.scope)


def _first_problem(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Say the first of pydantic's errors in plain words."""
    first = errors[0]
    kind, (place, *path) = first["type"], first["loc"]
    param = _dotted(path) or None
    name = param or ("the body" if place == "body" else place)
    if kind == "extra_forbidden":
        return Problem(400, f"there is no parameter {name!r:.200}", code="unknown_parameter", param=param)
    if kind == "missing":
        code = "missing_required_parameter"
        return Problem(400, f"{name} is missing", code=code, param=param)
    if kind == "value_error":
        return Problem(400, f"{name} {first['ctx']['error']}", param=param)
    if kind in ("model_attributes_type", "model_type", "dict_type"):
        return Problem(400, f"{name} must be a JSON object", param=param)
    text: str = first["msg"]
    subject, should, rest = text.partition(" should ")
    rest = rest.replace("a valid ", "a ")
    return Problem(400, f"{name} must {rest}" if should else f"{name}: {subject}", param=param)


def _dotted(path: Sequence[str | int]) -> str:
    """Return a place in the body as `seeds[2]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")[:200]


async def _of_galip(request: Request, error: Exception) -> Response:
    return answer(_galip_problem(request, error), request.scope)


def _galip_problem(request: Request, error: Exception) -> Problem:
    if isinstance(error, UsageError):
        return Problem(400, str(error))
    if isinstance(error, DeadlineExceeded):
        return Problem(504, str(error))
    if isinstance(error, ServiceUnavailable):
        if request.app.state.service.unready():
            return not_ready(str(error), error.retry_after)
        return Problem(429, str(error), headers=_retry_after(error.retry_after or 1))
    request_id = request.state.request_id
    parts = {"request_id": request_id, "prompts": request.scope["state"].get("prompts")}
    _log.error("the model failed: %s", error, exc_info=error, extra=parts)
    if isinstance(error, QualityGateFailed):
        return server_error(request_id, "the model gave numbers that are not finite")
    return server_error(request_id, "the model failed")


async def _of_nobody(request: Request, error: Exception) -> Response:
    request.scope["state"]["problem"] = "client_gone"
    return Response(status_code=_GONE)


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
