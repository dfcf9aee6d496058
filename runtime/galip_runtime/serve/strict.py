"""Requests are read strictly: JSON without its loopholes, and query strings that say each thing once."""

import json
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute

from galip_runtime.serve.problems import Problem

__all__ = ["StrictRoute", "parse_json"]

_MOST_DIGITS = 4000
"""of a whole number; Python reads a few more, and advises those who cannot"""


def parse_json(data: bytes) -> Any:
    """Return what JSON text in UTF-8 says.

    Raises Problem where it is not JSON, repeats a name, has NaN or a number beyond a float's range, half of a
    surrogate pair, or too many levels.
    """
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=_integer,
        )
        if "\\u" in text:  # which may be half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Problem(400, "the body has too many levels of brackets", code="invalid_json") from error
    except UnicodeEncodeError as error:
        message = "the body has half of a surrogate pair, which is no character"
        raise Problem(400, message, code="invalid_json") from error
    except UnicodeDecodeError as error:
        raise Problem(400, "the body is not UTF-8", code="invalid_json") from error
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error!s:.200}", code="invalid_json") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"it has {counts.most_common(1)[0][0]!r:.80} twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits, and {_MOST_DIGITS:,} are the most")
    return int(text)


def _number(text: str) -> float:
    """Return a number with a point or an exponent; as an int if it is whole, since JSON has one kind."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.80} is beyond the range of a float")
    return int(value) if value.is_integer() else value


class _StrictRequest(Request):
    async def json(self) -> Any:
        """Parse the body as `parse_json` does."""
        return parse_json(await self.body())


class StrictRoute(APIRoute):
    """A route that reads its query string and its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, after the checks."""
        handler = super().get_route_handler()
        known = set[str]()
        for parameter in self.dependant.query_params:  # a model, whose fields are the parameters
            known |= getattr(parameter.field_info.annotation, "model_fields", {}).keys()

        async def checked(request: Request) -> Response:
            _check_query(request, known)
            if request.method == "POST":
                _check_content_type(request)
            return await handler(_StrictRequest(request.scope, request.receive))

        return checked


def _check_query(request: Request, known: set[str]) -> None:
    """Raise Problem for a parameter that is unknown or there twice, and for text that is not UTF-8."""
    query: bytes = request.scope["query_string"]
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "the query string is not UTF-8") from error
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            there_is = f"there are {', '.join(sorted(known))}" if known else "there is none"
            message = f"there is no parameter {name!r:.80} in the query string; {there_is}"
            raise Problem(400, message, code="unknown_parameter", param=name[:80])
        if names.count(name) > 1:
            raise Problem(400, f"the query string has {name} more than once", param=name)


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, f"the body's Content-Type must be application/json, not {kind!r:.80}")
