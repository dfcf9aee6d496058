"""What both clients share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from galip_runtime.arrays import check_count
from galip_runtime.client.failures import Patience
from galip_runtime.client.requests import Request, check_key, check_timeout, service_address
from galip_runtime.errors import UsageError
from galip_runtime.install import install_extra

if TYPE_CHECKING:
    import httpx

    from galip_runtime.text_to_image import Progress

__all__ = ["BaseClient", "Counter", "Read"]

_Result = TypeVar("_Result")
Read = Callable[["httpx.Response", Request], _Result]
"""Reads an answer."""


class BaseClient:
    """What both clients know: the address, the key, and how long and how much at once."""

    def __init__(self, url: str, api_key: str | None, timeout: float | None, parallel: int) -> None:
        _check_packages()
        self.url = service_address(url)
        self.timeout = check_timeout(timeout)
        self.parallel = check_count(parallel, "parallel")
        key = check_key(api_key)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._model: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Describe the client: the service's address, never the key."""
        return f"<{type(self).__name__}: {self.url}>"

    def arguments(self, request: Request, patience: Patience) -> dict[str, Any]:
        """Return the arguments of httpx's `request`."""
        return {
            "method": request.method,
            "url": self.url + request.path,
            "json": request.body,
            "headers": self._headers,
            "timeout": patience.remaining(),
        }

    def check_open(self, is_closed: bool) -> None:
        """Raise UsageError if the client is closed."""
        if is_closed:
            raise UsageError("this client is closed; make another one")


class Counter:
    """Reports progress in pictures."""

    def __init__(self, requests: Sequence[Request], progress: Progress | None) -> None:
        self._total, self._done = sum(request.count for request in requests), 0
        self._progress = progress
        self._report()

    def add(self, request: Request) -> None:
        """Count the pictures of a request that is answered."""
        self._done += request.count
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


def _check_packages() -> None:
    """Raise UsageError with the command that installs them unless httpx and Pillow are there."""
    try:
        import httpx  # noqa: F401
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the client needs httpx and Pillow ({error}): {install_extra('client')}") from error
