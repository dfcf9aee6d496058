"""`Service`: the model, its queue and what the routes need of them, once the app runs."""

import asyncio
import functools
import hashlib
import json
import logging
import platform
import time
import warnings
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.types import Receive

from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.batching.batcher import Batcher
from galip_runtime.hardware import cpu_features, cpu_name, usable_cpus
from galip_runtime.image import encode_picture
from galip_runtime.loading import load
from galip_runtime.serve.metrics import Metrics
from galip_runtime.serve.problems import ClientGone, Problem, not_ready
from galip_runtime.serve.settings import ServeSettings
from galip_runtime.text_to_image import PromptCut, TextToImage

__all__ = ["ALIAS", "QUALITY", "Service", "load_model", "service_of"]

ALIAS = "galip"
"""Another name of whichever model is served."""
QUALITY = 95
"""Of JPEG and WebP files, where the request names none."""
T = TypeVar("T")
_log = logging.getLogger("galip_runtime.serve")
Pictures = npt.NDArray[np.uint8]
"""(N, H, W, 3)"""


class Service:
    """A model that draws for requests. Not started, it knows only its settings."""

    def __init__(self, settings: ServeSettings) -> None:
        """`draining`: set by the server once it is to stop."""
        self.settings = settings
        self.draining = False
        self.metrics = Metrics(lambda: self.batcher.length if self.batcher else 0)
        self.batcher: Batcher | None = None
        self._model: TextToImage | None = None
        self._files: ThreadPoolExecutor | None = None
        self._trial: asyncio.Task[Any] | None = None

    def start(self, model: TextToImage) -> None:
        """Take requests for `model` from now on."""
        # their text has the prompt: each would stay in the registry of warnings, and be in the log
        warnings.filterwarnings("ignore", category=PromptCut)
        settings = self.settings
        self._model = model
        self.info = model.info()
        self.created = int(time.time())
        self.identity = _identity(self.info)
        self.model_id = f"galip-{(model.digest or self.identity)[:12]}"
        self.size = f"{model.dimensions.image_width}x{model.dimensions.image_height}"
        self._files = ThreadPoolExecutor(usable_cpus(), "galip files")
        self.batcher = Batcher(
            model,
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            queue=settings.queue,
            observer=self.metrics,
        )

    async def stop(self) -> None:
        """Take no more requests, and finish those that were accepted within `grace` seconds."""
        self.draining = True
        if self.batcher is not None:  # the threads for files, which may be at work yet, end with the service
            await self.batcher.aclose(self.settings.grace)

    @property
    def has_started(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    @property
    def model(self) -> TextToImage:
        """The model. Raises Problem before the start."""
        if self._model is None:
            raise not_ready("the model is not loaded yet")
        return self._model

    def unready(self) -> str | None:
        """Return why the service cannot draw; None if it can."""
        if self.batcher is None:
            return "the model is not loaded yet"
        if self.draining or self.batcher.is_closed:
            return "the service is shutting down"
        if self.batcher.is_broken:
            return "the device has failed"
        return None

    def try_device(self) -> None:
        """Begin to draw a picture for nobody if the device has failed: once one comes, the service is ready.

        A service that is not ready is asked for pictures by nobody else.
        """
        if self.batcher is None or not self.batcher.is_broken or self._trial is not None:
            return
        self._trial = asyncio.ensure_future(self.batcher.generate("", seed=0, timeout=self.settings.timeout))
        self._trial.add_done_callback(self._tried_device)

    def _tried_device(self, trial: asyncio.Task[Any]) -> None:
        self._trial = None
        if not trial.cancelled() and (error := trial.exception()) is not None:
            _log.warning("the device still fails: %s", error)

    @property
    def queue(self) -> Batcher:
        """The queue. Raises Problem where it takes no pictures."""
        if self.batcher is None or self.batcher.is_closed:
            raise not_ready(self.unready() or "the service is not ready")
        return self.batcher

    @property
    def max_images(self) -> int:
        """The most pictures that one request for pictures makes."""
        return min(self.settings.max_images, self.settings.queue)

    @property
    def max_frames(self) -> int:
        """The most pictures that one interpolation makes."""
        return min(self.settings.max_steps, self.settings.queue)

    def check_model(self, name: str | None) -> None:
        """Raise Problem unless `name` is that of the model."""
        if name not in (None, ALIAS, self.model_id):
            message = f"there is no model {name!r:.80}; leave it out, or use {self.model_id}"
            raise Problem(404, message, code="model_not_found", param="model")

    async def draw(self, request: Request, work: Coroutine[Any, Any, Pictures]) -> Pictures:
        """Return the pictures of `work`, a call of the queue; cancel it once the client has gone."""
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().call_soon(self.metrics.note_queue)  # after the task's first step
        pictures = await _unless_gone(request.receive, task)
        request.state.pictures = len(pictures)  # for the log
        return pictures

    async def in_thread(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Return what `function`, which makes image files, returns; a thread calls it."""
        assert self._files is not None, "the service has started"
        started = time.perf_counter()
        call = functools.partial(function, *arguments, **options)
        result = await asyncio.get_running_loop().run_in_executor(self._files, call)
        self.metrics.seconds.labels("image_file").observe(time.perf_counter() - started)
        return result

    def file(
        self, picture: Any, kind: str, quality: int | None, prompt: str, seed: int, truncation: float | None
    ) -> bytes:
        """Return a picture, uint8 (H, W, 3), as a png, jpeg or webp file; a PNG says how it was made."""
        metadata = self.model.metadata([prompt], [seed], truncation)
        return encode_picture(picture, kind.upper(), metadata, QUALITY if quality is None else quality)

    def etag(self, *parts: object) -> str:
        """Return the ETag of what `parts` lead to, strong where a picture does not depend on its batch."""
        text = json.dumps([self.identity, *parts])
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        return tag if DEVICE_TABLE[self.info["device"]].batch_independent else f"W/{tag}"


def load_model(settings: ServeSettings) -> TextToImage:
    """Return the model that the settings name. Raises as `load`."""
    return load(
        settings.bundle, device=settings.device, precision=settings.precision, threads=settings.threads
    )


async def service_of(request: Request) -> Service:
    """Return the service of the app that got `request`; a dependency of routes, async to need no thread."""
    service: Service = request.app.state.service
    return service


def _identity(info: Mapping[str, Any]) -> str:
    """Return a digest of everything that a picture file's bytes depend on besides the request."""
    import PIL
    from PIL import features

    libraries = {name: features.version(name) for name in ("zlib", "libjpeg_turbo", "jpg", "webp")}
    parts = {
        name: info.get(name) for name in ("digest", "files", "device", "precision", "threads", "versions")
    }
    machine = [platform.machine(), cpu_name(), sorted(cpu_features())]
    text = json.dumps([parts, machine, PIL.__version__, libraries], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


async def _unless_gone(receive: Receive, task: asyncio.Task[T]) -> T:
    """Return the result of `task`; cancel it and raise ClientGone once the connection is closed."""
    watch = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        watch.result()
        raise ClientGone
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
