"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from galip_runtime.client import answers
from galip_runtime.client.answers import Pictures
from galip_runtime.client.base import BaseClient, Counter, Read
from galip_runtime.client.bodies import Body
from galip_runtime.client.failures import Patience, error_of, too_late, transport_error
from galip_runtime.client.requests import MODELS, Request, interpolation_request, png_request, requests_for
from galip_runtime.errors import DeadlineExceeded, GalipError
from galip_runtime.image import as_pil_images

if TYPE_CHECKING:
    import httpx

    from galip_runtime.picture_request import Seeds
    from galip_runtime.text_to_image import Progress

__all__ = ["AsyncClient"]

_Result = TypeVar("_Result")


class AsyncClient(BaseClient):
    """`Client` for asyncio: its methods are coroutines. Cancelling one cancels its requests.

    As an asynchronous context manager it is closed at the end of the block.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        *,
        parallel: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Take the arguments of `Client`; the calls raise the same errors."""
        super().__init__(url, api_key, timeout, parallel)
        import httpx

        self._http = httpx.AsyncClient(transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        await self._http.aclose()

    async def info(self) -> dict[str, Any]:
        """Return what `Client.info` returns."""
        self._model = await self._ask(MODELS, lambda response, _: answers.model_of(response))
        return dict(self._model)

    async def image_size(self) -> tuple[int, int]:
        """Return height and width of the model's pictures, in pixels."""
        return answers.image_size_of(self._model or await self.info())

    @overload
    async def generate(
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
    async def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: Literal[True],
    ) -> list[Any]: ...

    async def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> Pictures | list[Any]:
        """Return pictures as `Client.generate`: uint8 (N, H, W, 3), or a list of Pillow's images."""
        most = answers.most_per_request(self._model or await self.info())
        requests = requests_for(prompts, seeds, seed, truncation, most)
        pictures = answers.joined(await self._ask_all(requests, answers.pictures_of, progress))
        return as_pil_images(pictures) if as_pil else pictures

    async def png(self, prompt: str, seed: int | None = None, *, truncation: float | None = None) -> bytes:
        """Return a PNG file's bytes as `Client.png`."""
        return await self._ask(png_request(prompt, seed, truncation), answers.png_of)

    @overload
    async def interpolate(
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
    async def interpolate(
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

    async def interpolate(
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
        """Return pictures as `Client.interpolate`: uint8 (N, H, W, 3), or a list of Pillow's images."""
        request = interpolation_request(prompts, steps, seed, seeds, square, truncation)
        (pictures,) = await self._ask_all([request], answers.sheet_of, progress)
        return as_pil_images(pictures) if as_pil else pictures

    async def _ask_all(
        self, requests: Sequence[Request], read: Read[Pictures], progress: Progress | None
    ) -> list[Pictures]:
        """Return what `read` makes of the answers, in order; at most `parallel` are under way at once."""
        counter = Counter(requests, progress)
        parts: dict[int, Pictures] = {}
        waiting = iter(enumerate(requests))

        async def work() -> None:
            for index, request in waiting:
                parts[index] = await self._ask(request, read)
                counter.add(request)

        await _all_or_none([work() for _ in range(min(self.parallel, len(requests)))])
        return [parts[index] for index in range(len(requests))]

    async def _ask(self, request: Request, read: Read[_Result]) -> _Result:
        """Return what `read` makes of the answer. Tries again while the service is busy and time is left."""
        import httpx

        patience = Patience(self.timeout)
        while True:
            self.check_open(self._http.is_closed)
            error: GalipError | None
            try:
                async with (
                    asyncio.timeout(patience.remaining()),
                    self._http.stream(**self.arguments(request, patience)) as streamed,
                ):
                    body = Body(request, patience, self.url)
                    async for part in streamed.aiter_bytes():
                        body.add(part)
                response = body.answer(streamed)
            except DeadlineExceeded:
                raise
            except TimeoutError as failure:
                raise too_late(self.url) from failure
            except httpx.HTTPError as failure:
                error = transport_error(failure, self.url)
            else:
                if (error := error_of(response, self.url)) is None:
                    return await asyncio.to_thread(read, response, request)
            await asyncio.sleep(patience.wait_after(error))


async def _all_or_none(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together. The first error, or the caller's cancellation, cancels the others."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
