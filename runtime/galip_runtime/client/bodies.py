"""Reading answers with a limit of time and of bytes, whatever the other side sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galip_runtime.client.failures import Patience, too_late
from galip_runtime.client.requests import Request
from galip_runtime.errors import GalipError

if TYPE_CHECKING:
    import httpx

__all__ = ["Body"]

_MOST_WITHOUT_PICTURES = 2**20  # bytes
_MOST_OF_A_PICTURE = 2**25  # bytes; 2048x2048 pixels as noise, in base64, are half of it
_OF_THE_TRANSFER = (b"content-encoding", b"content-length", b"transfer-encoding")


class Body:
    """An answer's body as it arrives, part by part."""

    def __init__(self, request: Request, patience: Patience, address: str) -> None:
        """`request`: what is answered; `patience`: until when; `address`: the service's, for errors."""
        self._most = _MOST_WITHOUT_PICTURES + request.count * _MOST_OF_A_PICTURE
        self._patience, self._address = patience, address
        self._data = bytearray()

    def add(self, part: bytes) -> None:
        """Add a part, decoded. Raises DeadlineExceeded when the time is over, GalipError for too much."""
        if self._patience.is_over:
            raise too_late(self._address)
        if len(self._data) + len(part) > self._most:
            raise GalipError(
                f"the answer of {self._address} has more than {self._most:,} bytes, which no answer of galip "
                "has: check the URL"
            )
        self._data += part

    def answer(self, streamed: httpx.Response) -> httpx.Response:
        """Return the whole answer whose body has arrived."""
        import httpx

        headers = [
            (name, value) for name, value in streamed.headers.raw if name.lower() not in _OF_THE_TRANSFER
        ]
        return httpx.Response(streamed.status_code, headers=headers, content=bytes(self._data))
