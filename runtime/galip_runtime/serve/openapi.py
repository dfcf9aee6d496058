"""The description of the API, `/openapi.json`: what FastAPI derives, with the limits of this service."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from galip_runtime.serve.schemas import ErrorAnswer

if TYPE_CHECKING:
    from galip_runtime.serve.service import Service

__all__ = ["describe", "file_of", "problems"]

_MEANINGS = {
    400: "A parameter is wrong",
    401: "No API key, or an unknown one",
    403: "The Host header, or the page that asks, is not one that the service answers",
    404: "There is no such model",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "The queue is full: try again after `Retry-After` seconds",
    500: "The model or the service failed; the log says more under the id",
    503: "The service cannot draw now",
    504: "The pictures were not there in time",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_NULL = {"type": "null"}
_Schema = dict[str, Any]


def problems(*statuses: int) -> dict[int | str, _Schema]:
    """Return what a route says about its errors; 403 is any route's."""
    return {
        status: {
            "model": ErrorAnswer,
            "description": _MEANINGS[status],
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in (403, *statuses)
    }


def file_of(description: str, *kinds: str, headers: Mapping[str, Any]) -> _Schema:
    """Return what a route says about a file, of one of the media types `kinds`, that it returns."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"description": description, "content": content, "headers": dict(headers)}


def describe(app: FastAPI, service: "Service") -> _Schema:
    """Return the app's OpenAPI document."""
    document: _Schema = _exact(
        get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own, which problems.py replaces
    _limit_generations(schemas["GenerationRequest"], service)
    _limit_interpolations(schemas["InterpolationRequest"], service)
    if service.settings.api_key_file is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path.startswith("/v1/") or path == "/metrics":
                for operation in operations.values():
                    operation["security"] = [{"key": []}]
    return document


def _limit_generations(schema: _Schema, service: "Service") -> None:
    properties, most = schema["properties"], service.max_images
    _present(properties["n"])["maximum"] = most
    _present(properties["seeds"])["maxItems"] = most
    if service.has_started:
        _present(properties["size"])["enum"] = ["auto", service.size]
        _present(properties["model"])["enum"] = ["galip", service.model_id]
    schema["anyOf"] = [
        {"title": "consecutive seeds", "properties": {"seeds": _NULL}},
        {
            "title": "a picture for each seed",
            "required": ["seeds"],
            "properties": {"seeds": {"type": "array"}, "seed": _NULL, "n": _NULL},
        },
    ]


def _limit_interpolations(schema: _Schema, service: "Service") -> None:
    most = service.max_frames
    schema["properties"]["steps"]["maximum"] = most
    side = {"maximum": math.isqrt(most)}
    kinds = [
        _corners("a strip between two prompts", 2, (0, 1, 2)),
        _corners("a strip between two seeds", 1, (2,)),
        _corners("a square of two prompts and two seeds", 2, (2,), square=True, steps=side),
        _corners("a square between four prompts", 4, (0, 1, 4), steps=side),
        _corners("a square between four seeds", 1, (4,), steps=side),
    ]
    schema["anyOf"] = [kind for group in kinds for kind in group]


def _corners(
    title: str, prompts: int, seeds: Sequence[int], *, square: bool = False, steps: _Schema | None = None
) -> list[_Schema]:
    """Return the schemas of requests with so many prompts, and one of the numbers of `seeds`; 0 for none."""
    kinds = []
    for count in seeds:
        properties: _Schema = {
            "prompts": {"type": "array", "minItems": prompts, "maxItems": prompts},
            "square": {"const": True} if square else {"enum": [False, None]},
            "seeds": {"type": "array", "minItems": count, "maxItems": count} if count else _NULL,
            **({"seed": _NULL} if count else {}),
            **({"steps": steps} if steps else {}),
        }
        required = [*(["seeds"] if count else []), *(["square"] if square else [])]
        kinds.append({"title": title, "properties": properties, "required": required})
    return kinds


def _exact(value: Any) -> Any:
    """Return a document with the integers that FastAPI has made floats of, such as the limit of a seed."""
    if isinstance(value, dict):
        return {name: _exact(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_exact(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _present(schema: _Schema) -> _Schema:
    """Return the alternative of an optional parameter that is not null."""
    alternative: _Schema = next(part for part in schema["anyOf"] if part != _NULL)
    return alternative
