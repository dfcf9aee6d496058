"""`Batcher`: pictures for many callers at once, drawn in batches, for asyncio programs and threads."""

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import check_count, check_number
from galip_runtime.batching.lanes import BatchObserver, Lanes
from galip_runtime.batching.queue import Call
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.image import as_pil_images
from galip_runtime.picture_request import PictureRequest, Seeds, generate_request, interpolate_request

if TYPE_CHECKING:
    from galip_runtime.text_to_image import TextToImage

__all__ = ["BatchObserver", "Batcher"]

_MAX_WAIT_MS = 60_000
_LONGEST = 1e9  # seconds; event loops have limits of their own
_CLOSED = "the batcher was closed before the pictures were there"
_Pictures = npt.NDArray[np.uint8]


class Batcher:
    """Draws the pictures of many callers in common batches on one model.

    Threads and event loops may share it. On `cpu` and `openvino` a picture is bit for bit that of
    `TextToImage.generate`, whatever is in its batch. The queue is bounded, and its unit is the picture: a
    call for n takes n places, or none and raises ServiceUnavailable with `retry_after`. Calls take turns,
    one picture each. A call that is cancelled, or whose deadline passes, leaves the queue and costs nothing
    more.

    A forked process starts with an empty queue and threads of its own; a copy, pickled or not, with the
    same options and, pickled, with a model loaded anew.
    """

    def __init__(
        self,
        model: "TextToImage",
        *,
        max_batch: int = 8,
        max_wait_ms: float = 5.0,
        queue: int = 64,
        lanes: int | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        """Start nothing yet: the threads start with the first call.

        `max_batch`: pictures in one run. `max_wait_ms`: how many milliseconds a picture waits for others
        to fill its batch, at most; nothing is waited for while there is one caller alone. `queue`: pictures
        that may wait. `lanes`: batches that run at the same time; None takes two on `cpu` with two threads
        or more, and otherwise one. `observer` is notified of what happens. Raises UsageError.
        """
        self.model = model
        self.max_batch = check_count(max_batch, "max_batch")
        self.max_wait_ms = check_number(max_wait_ms, "max_wait_ms", least=0, most=_MAX_WAIT_MS)
        capacity = check_count(queue, "queue")
        count = _lanes_for(model) if lanes is None else check_count(lanes, "lanes", most=64)
        self._observer = observer
        self._lanes = Lanes(capacity, self.max_batch, self.max_wait_ms / 1000, count, observer)
        self._finalizer = weakref.finalize(self, self._lanes.queue.close)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the options, and the model by its own rules; never the queue."""
        queue = self._lanes.queue
        options: dict[str, Any] = {
            "max_batch": self.max_batch,
            "max_wait_ms": self.max_wait_ms,
            "queue": queue.capacity,
            "lanes": queue.lanes,
            "observer": self._observer,
        }
        return partial(Batcher, **options), (self.model,)

    @property
    def length(self) -> int:
        """How many pictures wait; those that are being drawn do not count."""
        return self._lanes.queue.length

    @property
    def capacity(self) -> int:
        """How many pictures may wait."""
        return self._lanes.queue.capacity

    @property
    def lanes(self) -> int:
        """How many batches run at the same time."""
        return self._lanes.queue.lanes

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._lanes.queue.closed

    @property
    def device_error(self) -> ProviderUnavailable | None:
        """How the device failed the last batch; None once a batch works again."""
        return self._lanes.device_error

    @property
    def is_broken(self) -> bool:
        """Whether the device failed the last batch."""
        return self.device_error is not None

    def seconds_to_wait(self) -> float:
        """Return about how many seconds a picture would take that is asked for now."""
        return self._lanes.seconds_to_wait()

    async def generate(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        timeout: float | None = None,
        as_pil: bool = False,
    ) -> Any:
        """Return pictures, uint8 (N, H, W, 3), RGB; with `as_pil`, a list of Pillow's images.

        `prompts`, `seeds`, `seed` and `truncation` as in `TextToImage.generate`. Raises UsageError for
        arguments that do not fit and for more pictures than `capacity`, ServiceUnavailable where the
        queue is full or closed, DeadlineExceeded unless all are there within `timeout` seconds,
        QualityGateFailed for a picture that is not finite, and ProviderUnavailable where the device fails.
        """
        request = self._generate_request(prompts, seeds, seed, truncation)
        pictures = await self._pictures(request, timeout)
        return as_pil_images(pictures) if as_pil else pictures

    async def interpolate(
        self,
        prompts: str | Sequence[str],
        steps: int = 8,
        seed: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        square: bool = False,
        truncation: float | None = None,
        timeout: float | None = None,
        as_pil: bool = False,
    ) -> Any:
        """Return pictures between prompts, seeds or both, uint8 (T, H, W, 3), or with `as_pil` Pillow's.

        The arguments are those of `TextToImage.interpolate`, and `timeout` and the errors as in `generate`.
        """
        tokenizer, noise_dim = self.model.tokenizer, self.model.dimensions.noise_dim
        request = interpolate_request(
            tokenizer, noise_dim, prompts, steps, seeds, seed, square, truncation, self.capacity
        )
        pictures = await self._pictures(request, timeout)
        return as_pil_images(pictures) if as_pil else pictures

    def stream(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        timeout: float | None = None,
        as_pil: bool = False,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Iterate over (index, picture), each uint8 (H, W, 3) or with `as_pil` Pillow's, as they are ready.

        They may come in another order than that of their indices. Arguments and errors are those of
        `generate`; UsageError is raised by this call, the others by the iteration, whose first step puts the
        pictures into the queue. Closing the iterator (`aclose`) cancels those that are left.
        """
        request = self._generate_request(prompts, seeds, seed, truncation)
        return self._stream(request, timeout, as_pil)

    def submit(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        timeout: float | None = None,
    ) -> "Future[_Pictures]":
        """Return a future of pictures, uint8 (N, H, W, 3), for programs without asyncio.

        Arguments and errors are those of `generate`; UsageError and ServiceUnavailable are raised by this
        call. `cancel()` of the future works until it is done. Without an event loop nothing watches the
        clock: DeadlineExceeded comes when a batch begins or ends.
        """
        return self._put(self._generate_request(prompts, seeds, seed, truncation), timeout).future

    def close(self, wait: bool = True, grace: float | None = None) -> None:
        """Take no more calls, and end. What was accepted is drawn.

        `wait`: until all of it is. `grace`: how many seconds to wait at most; calls that are left then end
        with ServiceUnavailable. May be called again.
        """
        seconds = _seconds(grace, "grace")
        queue = self._lanes.queue
        queue.close()
        if not wait:
            return
        if queue.wait_until_empty(seconds):
            self._lanes.join()
        else:
            queue.fail_all(_CLOSED)

    async def aclose(self, grace: float | None = None) -> None:
        """Do what `close` does, without blocking the event loop."""
        self._lanes.queue.close()
        await asyncio.get_running_loop().run_in_executor(None, partial(self.close, grace=grace))

    def _generate_request(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None,
        seed: int | None,
        truncation: float | None,
    ) -> PictureRequest:
        tokenizer, noise_dim = self.model.tokenizer, self.model.dimensions.noise_dim
        return generate_request(tokenizer, noise_dim, prompts, seeds, seed, truncation, self.capacity)

    def _put(
        self,
        request: PictureRequest,
        timeout: float | None,
        on_picture: Callable[[int, _Pictures], object] | None = None,
    ) -> Call:
        """Put a call into the queue."""
        seconds = _seconds(timeout, "timeout")
        size = self.model.dimensions
        pictures = np.empty((len(request), size.image_height, size.image_width, 3), np.uint8)
        deadline = None if seconds is None else time.monotonic() + seconds
        call = Call(self.model, request, pictures, deadline, on_picture)
        self._lanes.start()
        self._lanes.queue.put(call, self.seconds_to_wait)
        return call

    async def _pictures(self, request: PictureRequest, timeout: float | None) -> _Pictures:
        call = self._put(request, timeout)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        # not `wrap_future`, after which only the garbage collector would free the pictures
        call.future.add_done_callback(lambda _: _post(loop, ended.set))
        try:
            with _Alarm(self._lanes, call, timeout):
                await ended.wait()
        finally:
            call.future.cancel()
        return call.future.result()

    async def _stream(
        self, request: PictureRequest, timeout: float | None, as_pil: bool
    ) -> AsyncGenerator[tuple[int, Any], None]:
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[tuple[int, _Pictures] | None] = asyncio.Queue()

        def on_picture(index: int, picture: _Pictures) -> None:
            _post(loop, ready.put_nowait, (index, picture))

        call = self._put(request, timeout, on_picture)
        call.future.add_done_callback(lambda _: _post(loop, ready.put_nowait, None))
        try:
            with _Alarm(self._lanes, call, timeout):
                while (item := await ready.get()) is not None:
                    index, picture = item
                    yield index, as_pil_images(picture[None])[0] if as_pil else picture
            call.future.result()  # raises what the call failed with
        finally:
            call.future.cancel()


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Let `loop` call back, from another thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits in it any more
        loop.call_soon_threadsafe(callback, *arguments)


class _Alarm:
    """Ends a call at its deadline while the block runs, in the running event loop."""

    def __init__(self, lanes: Lanes, call: Call, timeout: float | None) -> None:
        seconds = _seconds(timeout, "timeout")
        self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, seconds), lanes.queue.expire, call)

    def __enter__(self) -> None:
        """Start nothing: the clock runs already."""

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _lanes_for(model: "TextToImage") -> int:
    """Return how many batches at once are fastest: two on several threads of a CPU, by measurement."""
    info = model.info()
    return 2 if info["device"] == "cpu" and info.get("threads", 1) >= 2 else 1


def _seconds(value: float | None, name: str) -> float | None:
    """Return a number of seconds; None where it is too far away to matter. Raises UsageError."""
    seconds = None if value is None else check_number(value, name)
    return None if seconds is None or seconds > _LONGEST else seconds
