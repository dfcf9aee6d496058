"""What goes wrong between client and service, as galip's errors, and when it is worth trying again."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

from galip_runtime.errors import DeadlineExceeded, GalipError, ServiceUnavailable, UsageError

if TYPE_CHECKING:
    import httpx

__all__ = ["Patience", "error_of", "too_late", "transport_error"]

_MAX_QUOTED = 200  # characters of an answer that is not the service's
_LONGEST_TIMEOUT = 1e6  # seconds; a socket takes no infinity
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds between tries, where the service does not name them


class Busy(ServiceUnavailable):
    """The service asked to be tried again: its queue is full, or it is not ready."""


class ConnectionLost(ServiceUnavailable):
    """The connection ended before the whole answer was there."""


class Patience:
    """When to try a request again, and until when."""

    def __init__(self, timeout: float | None) -> None:
        """`timeout`: seconds from now for all tries together; None for no limit."""
        self._end = None if timeout is None else time.monotonic() + timeout
        self._waits = 0
        self._may_resend = True

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._end is not None and time.monotonic() >= self._end

    def remaining(self) -> float | None:
        """Return the seconds that are left, above 0; None for no limit."""
        if self._end is None:
            return None
        return min(max(self._end - time.monotonic(), 1e-3), _LONGEST_TIMEOUT)

    def wait_after(self, error: GalipError) -> float:
        """Return the seconds to wait before another try. Raises `error` if no other try could help."""
        if isinstance(error, ConnectionLost) and self._may_resend:
            self._may_resend = False  # the service may just have closed an idle connection
            return 0.0
        if not isinstance(error, Busy):
            raise error
        wait = error.retry_after
        if wait is None:
            wait = min(_FIRST_WAIT * 2**self._waits, _LONGEST_WAIT)
        self._waits += 1
        wait *= random.uniform(1.0, 1.2)  # callers that were turned away together come back one by one
        left = self.remaining()
        if left is not None and wait >= left:
            raise error
        return wait


def too_late(address: str) -> DeadlineExceeded:
    """Return what to raise where the answer was not there in time."""
    return DeadlineExceeded(
        f"the service at {address} did not answer in time; ask for fewer pictures at a time, or give the "
        "client a longer timeout"
    )


def transport_error(error: httpx.HTTPError, address: str) -> GalipError:
    """Return what to raise where no answer came, for one of httpx's errors."""
    import httpx

    what = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return ServiceUnavailable(
            f"no service answers at {address}: {what}",
            "start one with `galip serve` or `python -m galip_runtime.serve`, or correct the URL",
        )
    if isinstance(error, httpx.TimeoutException):
        return too_late(address)
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return ConnectionLost(f"the service at {address} broke off its answer: {what}; try again")
    return GalipError(f"the answer of {address} cannot be used: {what}")


def error_of(response: httpx.Response, address: str) -> GalipError | None:
    """Return what to raise for the service's answer; None for a good one."""
    status = response.status_code
    if status == 200:
        return None
    message = _message(response)
    if message is None:
        return _foreign(response, address)
    if status in (401, 403):
        return UsageError(message, 'give the key to the client: Client(url, api_key="…")')
    if status in (429, 503):
        return Busy(message, retry_after=_retry_after(response))
    if status == 504:
        return DeadlineExceeded(message, retry_after=_retry_after(response))
    if 400 <= status < 500:
        return UsageError(message)
    request_id = response.headers.get("X-Request-Id", "")
    more = [] if request_id in message else [f"the service's log has more under {request_id}"]
    return GalipError(message, *more)


def _message(response: httpx.Response) -> str | None:
    """Return the message of an error in the service's form; None for anything else."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) and message else None


def _foreign(response: httpx.Response, address: str) -> GalipError:
    """Return the error for an answer that is not galip's: a proxy's page, or another program's."""
    status, kind = response.status_code, response.headers.get("Content-Type", "no content type")
    if 300 <= status < 400:
        target = response.headers.get("Location", "elsewhere")
        return UsageError(f"{address} redirects to {target!r:.200}: give the client the address behind it")
    start = response.text[:_MAX_QUOTED].strip()
    message = f"{address} answered {status} with {kind} instead of galip's JSON: {start!r}"
    advice = "something else listens there, or a proxy stands between: check the URL"
    if status in (429, 502, 503, 504):
        return ServiceUnavailable(message, advice, retry_after=_retry_after(response))
    return GalipError(message, advice)


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`; None where it names none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
