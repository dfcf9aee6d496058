"""`TextToImage`: the Python API of everything that turns prompts into pictures, a bundle or PyTorch.

N pictures, H by W pixels, Z numbers of noise, D numbers in a sentence vector; the model fixes the last four.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import (
    MAX_PICTURES,
    Floats,
    batches,
    check_count,
    check_finite,
    check_rows,
    to_uint8,
)
from galip_runtime.bundle.manifest import Dimensions
from galip_runtime.errors import UsageError
from galip_runtime.forks import Lock
from galip_runtime.image import as_pil_images, encode_png, picture_metadata
from galip_runtime.interpolation import check_corners, check_steps
from galip_runtime.noise import noise as noise_of
from galip_runtime.picture_request import (
    PictureRequest,
    PromptCut,
    Seeds,
    as_seeds,
    encode_prompts,
    generate_request,
    interpolate_request,
    one_of,
    seed_series,
)
from galip_runtime.sentence_cache import CAPTIONS_AT_ONCE, SentenceCache
from galip_runtime.tokenizer import Tokenizer, trim

if TYPE_CHECKING:
    from galip_runtime.batcher import Batcher

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

_CACHED_SENTENCES = 1024
_OWN_QUEUE = 1024  # pictures that may wait in `generate_async`


class TextToImage(ABC):
    """Generates pictures from prompts. Threads may share it.

    As a context manager it is closed at the end of the block.
    """

    def __init__(
        self, tokenizer: Tokenizer, dimensions: Dimensions, captions_at_once: int = CAPTIONS_AT_ONCE
    ) -> None:
        """`captions_at_once`: how many new captions `encode_text` encodes together, at most."""
        self.tokenizer = tokenizer
        self.dimensions = dimensions
        self._sentences = SentenceCache(_CACHED_SENTENCES, captions_at_once)
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

    @property
    def rounds_on_device(self) -> bool:
        """Whether the device rounds for `decode_pictures`; otherwise numpy rounds the output of `decode`."""
        return False

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return what is loaded and how it runs, fit for JSON; at least `device` and `precision` by part."""

    @abstractmethod
    def _run_text(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Map tokens, int64 (N, L), to sentence vectors, float32 (N, D)."""

    @abstractmethod
    def _run_generator(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Map noise, float32 (N, Z), and sentences, float32 (N, D), to images, float32 (N, 3, H, W)."""

    def _run_pictures(
        self, noise: npt.NDArray[np.float32], sentence: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """Map the same to pictures, uint8 (N, H, W, 3). Raises QualityGateFailed where one is not finite."""
        return to_uint8(check_finite(self._run_generator(noise, sentence), "generator"))

    def encode_text(self, prompts: str | Sequence[str]) -> npt.NDArray[np.float32]:
        """Return sentence vectors, float32 (N, D), not normalised. Repeated captions come from a cache.

        Warns of a prompt that is cut (`PromptCut`). Raises UsageError for no prompt, something other than
        text, and a prompt of more than `MAX_PROMPT_LENGTH` characters.
        """
        return self.encode_cached(encode_prompts(self.tokenizer, prompts, stacklevel=3))

    def encode_cached(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return what `encode_tokens` does, with repeated rows from the cache of `encode_text`."""
        return self._sentences(tokens, self.encode_tokens)

    def encode_tokens(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return sentence vectors, float32 (N, D), of tokens from `tokenizer.encode`, int64 (N, L).

        Nothing is cached. Raises UsageError for another dtype or shape, and for an id that is not in the
        vocabulary.
        """
        self.tokenizer.check(tokens)
        return check_finite(self._run_text(trim(tokens)), "text encoder")

    def noise(
        self,
        seeds: int | Sequence[int] | npt.NDArray[np.integer] | None = None,
        truncation: float | None = None,
        *,
        seed: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return noise for `decode`, float32 (N, Z): row i depends on seed i alone; cut at ±`truncation`.

        `seed` is the same as `seeds` with one. Raises UsageError for a seed or truncation out of range.
        """
        chosen = one_of(seed, seeds)
        if chosen is None:
            raise UsageError("noise needs seeds: give `seed` for one or `seeds` for several")
        return noise_of(as_seeds(chosen), self.dimensions.noise_dim, truncation)

    def decode(self, noise: Floats, sentence: Floats) -> npt.NDArray[np.float32]:
        """Return the generator's images: float32 (N, 3, H, W), RGB, nominally in [-1, 1], not clamped.

        `noise`: float (N, Z); `sentence`: float (N, D). float64 and float16 are rounded to float32. All N are
        one run. Raises UsageError for another shape or dtype and for values that are not finite, and
        QualityGateFailed where an image is not finite.
        """
        return check_finite(self._run_generator(*self._rows(noise, sentence)), "generator")

    def decode_pictures(self, noise: Floats, sentence: Floats) -> npt.NDArray[np.uint8]:
        """Return `decode`'s images as pictures, uint8 (N, H, W, 3), RGB: [-1, 1] becomes 0 … 255, rounded.

        `noise`: float (N, Z); `sentence`: float (N, D). Raises as `decode`. On a GPU this is faster than
        `decode`, because it copies less.
        """
        return self._run_pictures(*self._rows(noise, sentence))

    def draw(self, noise: Floats, sentence: Floats) -> npt.NDArray[np.uint8]:
        """Call `decode_pictures`, whose name in 0.1 this is."""
        warnings.warn("TextToImage.draw is now decode_pictures", DeprecationWarning, stacklevel=2)
        return self.decode_pictures(noise, sentence)

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
    ) -> Any:
        """Return pictures between prompts, seeds or both: `lerp` of sentence vectors, `slerp` of noise.

        A strip, uint8 (steps, H, W, 3), runs from the first to the second, both included: two prompts with
        one seed, one prompt with two `seeds`, or two of each. A square, uint8 (steps * steps, H, W, 3), row
        by row, has four prompts or four `seeds`, or both, in its corners (top left, top right, bottom left,
        bottom right); with `square`, two prompts from left to right and two `seeds` from top to bottom.
        `steps`: at least 2; `seed`: from 0 to 2^64 - 1, None picks one; `progress` as in `generate`. Raises
        UsageError for arguments that do not fit.
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
        from galip_runtime.batcher import Batcher

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
            yield part, self.decode_pictures(request.noise[part], sentence[part])
            report(min(part.stop, len(request)), len(request))

    def _rows(
        self, noise: Floats, sentence: Floats
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return both as float32, one row a picture. Raises UsageError as `decode`."""
        z = check_rows(noise, "noise", self.dimensions.noise_dim)
        e = check_rows(sentence, "sentence", self.dimensions.sentence_dim)
        if len(z) != len(e):
            raise UsageError(f"noise has {len(z)} rows and sentence {len(e)}; each picture takes one of both")
        return z, e


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""
