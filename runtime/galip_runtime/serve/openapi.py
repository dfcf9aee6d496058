"""The description of the API, `/openapi.json`: what FastAPI derives, with the limits of this service."""

from typing import Any

from galip_runtime.serve.schemas import ErrorAnswer

__all__ = ["problems"]

_MEANINGS = {
    400: "A parameter is wrong",
    401: "No API key, or an unknown one",
    404: "There is no such thing",
    405: "Another method",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "The queue is full: try again after `Retry-After` seconds",
    500: "The model or the service failed; the log says more under the id",
    503: "The service cannot draw now",
    504: "The pictures were not there in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route says about its errors."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}
