"""The client for programs without asyncio."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from galip_runtime.client import answers
from galip_runtime.client.answers import Pictures
from galip_runtime.client.base import BaseClient, Counter, Read
from galip_runtime.client.bodies import Body
from galip_runtime.client.failures import Patience, error_of, transport_error
from galip_runtime.client.requests import MODELS, Request, interpolation_request, png_request, requests_for
from galip_runtime.errors import GalipError
from galip_runtime.image import as_pil_images

if TYPE_CHECKING:
    import httpx

    from galip_runtime.picture_request import Seeds
    from galip_runtime.text_to_image import Progress

__all__ = ["Client"]

_Result = TypeVar("_Result")


class Client(BaseClient):
    """The methods of a loaded model, by a service. Threads may share it.

    As a context manager it is closed at the end of the block.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        *,
        parallel: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to the service at `url`, as `http://127.0.0.1:8000`, when the first request is made.

        A call is split into requests of up to eight pictures, `parallel` of which are under way at once.
        `timeout`: seconds for each of them, including further tries while the service is busy; None for no
        limit. `transport`: httpx's, for certificates or a proxy of your own.

        Raises UsageError for a URL, key or number that cannot be used, and where httpx or Pillow is missing.

        Every call raises UsageError for arguments that the service refuses, or a key that it does not know;
        ServiceUnavailable where no service answers, or it stays busy; DeadlineExceeded, its child, where the
        time is over; and GalipError for an error of the service and for an answer that cannot be used.
        """
        super().__init__(url, api_key, timeout, parallel)
        import httpx

        self._http = httpx.Client(transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        self._http.close()

    def info(self) -> dict[str, Any]:
        """Return what the service says of its model: id, size, bundle digest, device and precision."""
        self._model = self._ask(MODELS, lambda response, _: answers.model_of(response))
        return dict(self._model)

    def image_size(self) -> tuple[int, int]:
        """Return height and width of the model's pictures, in pixels."""
        return answers.image_size_of(self._model or self.info())

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: Literal[False] = False,
    ) -> Pictures: ...

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: Literal[True],
    ) -> list[Any]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> Pictures | list[Any]:
        """Return pictures, uint8 (N, H, W, 3), RGB; with `as_pil`, a list of Pillow's images.

        The arguments are those of `TextToImage.generate`, and the pictures are the service's model's to the
        bit. `progress` is called in this thread, before the first request and after each.
        """
        requests = requests_for(prompts, seeds, seed, truncation, self._most())
        parts = self._ask_all(requests, answers.pictures_of, progress)
        pictures = answers.joined(parts)
        return as_pil_images(pictures) if as_pil else pictures

    def png(self, prompt: str, seed: int | None = None, *, truncation: float | None = None) -> bytes:
        """Return a picture as the bytes of a PNG file, with prompt, seed and the bundle's digest inside."""
        return self._ask(png_request(prompt, seed, truncation), answers.png_of)

    @overload
    def interpolate(
        self,
        prompts: str | Sequence[str],
        steps: int = 8,
        seed: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        square: bool = False,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: Literal[False] = False,
    ) -> Pictures: ...

    @overload
    def interpolate(
        self,
        prompts: str | Sequence[str],
        steps: int = 8,
        seed: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        square: bool = False,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: Literal[True],
    ) -> list[Any]: ...

    def interpolate(
        self,
        prompts: str | Sequence[str],
        steps: int = 8,
        seed: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        square: bool = False,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> Pictures | list[Any]:
        """Return pictures between prompts, seeds or both, uint8 (N, H, W, 3), as `TextToImage.interpolate`.

        With `as_pil`, a list of Pillow's images. All are one request, which the service may limit
        (its setting `max_steps`).
        """
        request = interpolation_request(prompts, steps, seed, seeds, square, truncation)
        (pictures,) = self._ask_all([request], answers.sheet_of, progress)
        return as_pil_images(pictures) if as_pil else pictures

    def _most(self) -> int:
        return answers.most_per_request(self._model or self.info())

    def _ask_all(
        self, requests: Sequence[Request], read: Read[Pictures], progress: Progress | None
    ) -> list[Pictures]:
        """Return what `read` makes of the answers, in order; at most `parallel` are under way at once."""
        counter = Counter(requests, progress)
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(self.parallel, len(requests)), "galip client")
        futures = {pool.submit(self._ask, request, read, stop): request for request in requests}
        try:
            for future in as_completed(futures):
                future.result()
                counter.add(futures[future])
        finally:  # after an error, what is under way ends by itself, and is not tried again
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]

    def _ask(self, request: Request, read: Read[_Result], stop: threading.Event | None = None) -> _Result:
        """Return what `read` makes of the answer. Tries again while the service is busy and time is left."""
        import httpx

        stop = stop or threading.Event()
        patience = Patience(self.timeout)
        while True:
            self.check_open(self._http.is_closed)
            error: GalipError | None
            try:
                with self._http.stream(**self.arguments(request, patience)) as streamed:
                    body = Body(request, patience, self.url)
                    for part in streamed.iter_bytes():
                        body.add(part)
                response = body.answer(streamed)
            except httpx.HTTPError as failure:
                error = transport_error(failure, self.url)
            else:
                if (error := error_of(response, self.url)) is None:
                    return read(response, request)
            if stop.wait(patience.wait_after(error)):
                raise error
