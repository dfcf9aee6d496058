"""`TextToImage`: the Python API of everything that turns prompts into pictures, a bundle or PyTorch.

N pictures, H by W pixels, Z numbers of noise, D numbers in a sentence vector; the model fixes the last four.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import (
    MAX_PICTURES,
    batches,
    check_count,
)
from galip_runtime.bundle.manifest import Dimensions
from galip_runtime.errors import UsageError
from galip_runtime.forks import Lock
from galip_runtime.image import as_pil_images, encode_png, picture_metadata
from galip_runtime.interpolation import check_corners, check_steps
from galip_runtime.picture_request import (
    PictureRequest,
    PromptCut,
    Seeds,
    generate_request,
    interpolate_request,
    seed_series,
)
from galip_runtime.sentence_cache import CAPTIONS_AT_ONCE
from galip_runtime.stages import Stages
from galip_runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from galip_runtime.batching.batcher import Batcher

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "MAX_PICTURES",
    "Progress",
    "PromptCut",
    "TextToImage",
    "check_corners",
    "check_steps",
    "seed_series",
]

DEFAULT_BATCH_SIZE = 8
"""Pictures in one run. More is no faster on a CPU and takes more memory (0.1 GB each at 224 pixels)."""

Progress = Callable[[int, int], object]
"""Called as `progress(done, total)`, in pictures. An exception that it raises cancels the call."""

_OWN_QUEUE = 1024  # pictures that may wait in `generate_async`


class TextToImage(Stages):
    """Generates pictures from prompts. Threads may share it.

    As a context manager it is closed at the end of the block.
    """

    def __init__(
        self, tokenizer: Tokenizer, dimensions: Dimensions, captions_at_once: int = CAPTIONS_AT_ONCE
    ) -> None:
        """`captions_at_once`: how many new captions `encode_text` encodes together, at most."""
        super().__init__(tokenizer, dimensions, captions_at_once)
        self._batcher: Batcher | None = None
        self._making_batcher = Lock()

    def __repr__(self) -> str:
        """Describe the model: device, precision and size of its pictures."""
        info, size = self.info(), self.dimensions
        precision = info["precision"]["generator"]
        kind, pixels = type(self).__name__, f"{size.image_width}x{size.image_height}"
        return f"<{kind}: {pixels} pixels, {precision} on {info['device']}, from {info['path']!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory that the model takes. It cannot be used afterwards.

        What `generate_async` has not drawn yet ends with ServiceUnavailable.
        """
        if self._batcher is not None:
            self._batcher.close(grace=0.0)

    @property
    def digest(self) -> str | None:
        """Digest of the bundle; None for a model that comes from none."""
        return None

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: Literal[False] = False,
    ) -> npt.NDArray[np.uint8]: ...

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: Literal[True],
    ) -> list[Any]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> npt.NDArray[np.uint8] | list[Any]:
        """Return pictures, uint8 (N, H, W, 3), RGB; with `as_pil`, a list of Pillow's images.

        `seeds`: one for each picture, from 0 to 2^64 - 1. One prompt goes with any number of seeds, one seed
        with any number of prompts; otherwise give as many of both. None picks a random seed for each prompt;
        to be able to repeat a picture, pick seeds with `seed_series` and pass them.
        `truncation`: cut the noise at ± this (`galip_runtime.noise.truncate`): lower gives plainer pictures
        and less variety. `batch_size`: pictures in one run. `progress` is called before the first run and
        after each. `seed` is the same as `seeds` with one. Raises UsageError for arguments that do not fit.
        """
        request = generate_request(
            self.tokenizer, self.dimensions.noise_dim, prompts, seeds, seed, truncation
        )
        pictures = self._pictures(request, batch_size, progress)
        return as_pil_images(pictures) if as_pil else pictures

    def png(self, prompt: str, seed: int | None = None, *, truncation: float | None = None) -> bytes:
        """Return a picture as the bytes of a PNG file, with prompt, seed and the bundle's digest inside.

        `seed` and `truncation` as in `generate`; None picks a seed, which the file names. Raises UsageError.
        """
        seeds = seed_series(seed)
        (picture,) = self.generate([prompt], seeds, truncation=truncation)
        return encode_png(picture, self.metadata([prompt], seeds, truncation))

    def metadata(
        self, prompts: Sequence[str], seeds: Sequence[int], truncation: float | None = None
    ) -> dict[str, str]:
        """Return texts that say how pictures were generated, for `galip_runtime.image.save_picture`."""
        return picture_metadata(prompts, seeds, truncation, self.digest)

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
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: Literal[False] = False,
    ) -> npt.NDArray[np.uint8]: ...

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
        batch_size: int = DEFAULT_BATCH_SIZE,
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
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> npt.NDArray[np.uint8] | list[Any]:
        """Return pictures between prompts, seeds or both: `lerp` of sentence vectors, `slerp` of noise.

        A strip, uint8 (steps, H, W, 3), runs from the first to the second, both included: two prompts with
        one seed, one prompt with two `seeds`, or two of each. A square, uint8 (steps * steps, H, W, 3), row
        by row, has four prompts or four `seeds`, or both, in its corners (top left, top right, bottom left,
        bottom right); with `square`, two prompts from left to right and two `seeds` from top to bottom.
        `steps`: at least 2; `seed`: from 0 to 2^64 - 1, None picks one; `progress` and `as_pil` as in
        `generate`. Raises UsageError for arguments that do not fit.
        """
        request = interpolate_request(
            self.tokenizer, self.dimensions.noise_dim, prompts, steps, seeds, seed, square, truncation
        )
        pictures = self._pictures(request, batch_size, progress)
        return as_pil_images(pictures) if as_pil else pictures

    def stream(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
        as_pil: bool = False,
    ) -> Generator[Any, None, None]:
        """Iterate over the pictures of `generate`, each uint8 (H, W, 3) or with `as_pil` Pillow's, in order.

        Each comes as soon as its batch is drawn. Nothing is drawn before the first is asked for, and
        nothing more after the iterator is closed. The arguments are those of `generate`, and UsageError is
        raised by this call.
        """
        request = generate_request(
            self.tokenizer, self.dimensions.noise_dim, prompts, seeds, seed, truncation
        )
        check_count(batch_size, "batch_size")
        return self._stream(request, batch_size, progress, as_pil)

    def _stream(
        self, request: PictureRequest, batch_size: int, progress: Progress | None, as_pil: bool
    ) -> Generator[Any, None, None]:
        for _, pictures in self._drawn(request, batch_size, progress):
            yield from as_pil_images(pictures) if as_pil else pictures

    async def generate_async(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        timeout: float | None = None,
        as_pil: bool = False,
    ) -> Any:
        """Return what `generate` returns, without blocking the event loop.

        Calls that are made at the same time are drawn in common batches, by a `Batcher` with a queue of
        1,024 pictures; `timeout` and the errors are those of `Batcher.generate`.
        """
        return await self._own_batcher().generate(
            prompts, seeds, seed=seed, truncation=truncation, timeout=timeout, as_pil=as_pil
        )

    def stream_async(
        self,
        prompts: str | Sequence[str],
        seeds: Seeds | None = None,
        *,
        seed: int | None = None,
        truncation: float | None = None,
        timeout: float | None = None,
        as_pil: bool = False,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Iterate over (index, picture) as `Batcher.stream` does, with the batcher of `generate_async`."""
        return self._own_batcher().stream(
            prompts, seeds, seed=seed, truncation=truncation, timeout=timeout, as_pil=as_pil
        )

    def _own_batcher(self) -> "Batcher":
        from galip_runtime.batching.batcher import Batcher

        with self._making_batcher:
            if self._batcher is None or self._batcher.is_closed:
                self._batcher = Batcher(self, queue=_OWN_QUEUE)
            return self._batcher

    def _pictures(
        self, request: PictureRequest, batch_size: int, progress: Progress | None
    ) -> npt.NDArray[np.uint8]:
        size = (self.dimensions.image_height, self.dimensions.image_width)
        try:
            pictures = np.empty((len(request), *size, 3), np.uint8)
        except (MemoryError, ValueError) as error:  # ValueError: more than the address space
            raise UsageError(
                f"{len(request):,} pictures of {size[1]}x{size[0]} pixels do not fit into memory; generate "
                "fewer at a time"
            ) from error
        for part, drawn in self._drawn(request, batch_size, progress):
            pictures[part] = drawn
        return pictures

    def _drawn(
        self, request: PictureRequest, batch_size: int, progress: Progress | None
    ) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
        """Yield the pictures of each run, with their place among all."""
        sentence = request.sentences(self.encode_cached(request.tokens))
        report = progress or _no_progress
        report(0, len(request))
        for part in batches(len(request), check_count(batch_size, "batch_size")):
            pictures = self.decode_pictures(request.noise[part], sentence[part])
            report(min(part.stop, len(request)), len(request))
            yield part, pictures


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""
