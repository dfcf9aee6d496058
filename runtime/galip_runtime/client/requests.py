"""What the clients send, as plain functions without a network.

A `Request` is a part of a call that the service accepts: pictures of one prompt, or one interpolation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from galip_runtime.errors import UsageError
from galip_runtime.noise import check_truncation
from galip_runtime.picture_request import Seeds, as_seeds, corners_of, count_of, one_of, seed_series
from galip_runtime.tokenizer import as_prompts

__all__ = [
    "MAX_PER_REQUEST",
    "MODELS",
    "Request",
    "check_key",
    "check_timeout",
    "interpolation_request",
    "png_request",
    "requests_for",
    "service_address",
]

MAX_PER_REQUEST = 8
"""Pictures in one request: a batch of the service as it is by default."""
_MAX_COLUMNS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    path: str
    body: dict[str, Any] | None = None
    """JSON to POST; None for a GET."""
    count: int = 0
    """Pictures in the answer."""
    columns: int = 0
    """Pictures in a row of the sheet that the answer is, if it is one; its rows are full."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"


MODELS = Request("/v1/models")


def service_address(url: object) -> str:
    """Return the service's address without a slash or `/v1` at its end. Raises UsageError for other URLs."""
    import httpx

    try:
        parsed = httpx.URL(url) if isinstance(url, str) else None
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r:.200} is no URL: {error}") from error
    if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"the service's URL is like http://127.0.0.1:8000, not {url!r:.200}")
    if parsed.userinfo:
        raise UsageError("the service's URL has no user or password in it: give the key as api_key")
    if parsed.query or parsed.fragment:
        raise UsageError(f"the service's URL has neither ? nor #: {url!r:.200}")
    return str(parsed).rstrip("/").removesuffix("/v1").rstrip("/")


def check_key(key: object) -> str | None:
    """Return an API key, or None for none. Raises UsageError for one that no HTTP header can hold."""
    if key is None or (isinstance(key, str) and key and all("!" <= letter <= "~" for letter in key)):
        return key
    raise UsageError("an API key is a text of visible ASCII characters without spaces")


def check_timeout(timeout: object) -> float | None:
    """Return a time limit in seconds, or None for none. Raises UsageError unless it is above 0."""
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0:
        return float(timeout)
    raise UsageError(f"timeout is a number of seconds above 0, or None for no limit, not {timeout!r:.80}")


def requests_for(
    prompts: str | Sequence[str],
    seeds: Seeds | None,
    seed: int | None,
    truncation: float | None,
    most: int,
) -> list[Request]:
    """Return the requests for `TextToImage.generate`'s pictures in order, `most` pictures in one at most.

    Raises UsageError as `TextToImage.generate`.
    """
    texts, numbers = _paired(_texts(prompts), one_of(seed, seeds))
    most, truncation = min(most, MAX_PER_REQUEST), check_truncation(truncation)
    runs: list[tuple[str, list[int]]] = []
    for text, number in zip(texts, numbers, strict=True):
        if not runs or runs[-1][0] != text or len(runs[-1][1]) == most:
            runs.append((text, []))
        runs[-1][1].append(number)
    return [_pictures_request(text, part, truncation) for text, part in runs]


def _texts(prompts: str | Sequence[str]) -> list[str]:
    """Return prompts that JSON can hold: a lone surrogate is U+FFFD, as the tokenizer has it."""
    return [_SURROGATE.sub("\ufffd", text) for text in as_prompts(prompts)]


def _paired(prompts: list[str], seeds: Seeds | None) -> tuple[list[str], list[int]]:
    """Return a prompt and a seed for each picture. Raises UsageError for numbers that do not go together."""
    numbers = seed_series(None, max(len(prompts), 1)) if seeds is None else as_seeds(seeds)
    count = count_of(prompts, numbers)
    return prompts * (count // len(prompts)), numbers * (count // len(numbers))


def png_request(prompt: str, seed: int | None, truncation: float | None) -> Request:
    """Return the request for one picture's PNG file. Raises UsageError as `TextToImage.png`."""
    if not isinstance(prompt, str):
        raise UsageError(f"png takes one prompt, a text, not {type(prompt).__name__}")
    (request,) = requests_for(prompt, None, seed, truncation, 1)
    return request


def _pictures_request(prompt: str, seeds: list[int], truncation: float | None) -> Request:
    body: dict[str, Any] = {"prompt": prompt, "seeds": seeds}
    if truncation is not None:
        body["truncation"] = truncation
    # not by GET: a long prompt fits into no address, and addresses end up in logs
    return Request("/v1/images/generations", {**body, "response_format": "b64_json"}, len(seeds))


def interpolation_request(
    prompts: str | Sequence[str],
    steps: int,
    seed: int | None,
    seeds: Sequence[int] | None,
    square: bool,
    truncation: float | None,
) -> Request:
    """Return the request for `TextToImage.interpolate`'s pictures, on a sheet. Raises UsageError."""
    texts = _texts(prompts)
    chosen = one_of(seed, seeds)
    numbers = seed_series() if chosen is None else as_seeds(chosen)
    steps, is_square = corners_of(texts, numbers, steps, square)
    count = steps * steps if is_square else steps
    body: dict[str, Any] = {"prompts": texts, "steps": steps, "seeds": numbers, "square": bool(square)}
    if (truncation := check_truncation(truncation)) is not None:
        body["truncation"] = truncation
    columns = max(number for number in range(1, min(count, _MAX_COLUMNS) + 1) if count % number == 0)
    # a PNG, since an animation drops a picture that is equal to the one before
    sheet = {"output_format": "sheet", "columns": columns, "gap": 0}
    return Request("/v1/interpolations", body | sheet, count, columns)
