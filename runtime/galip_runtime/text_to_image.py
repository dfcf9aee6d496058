"""`TextToImage`: the Python API of everything that turns prompts into pictures, a bundle or PyTorch.

N pictures, H by W pixels, Z numbers of noise, D numbers in a sentence vector; the model fixes the last four.
"""

import secrets
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import (
    MAX_PICTURES,
    Floats,
    batches,
    check_count,
    check_finite,
    check_rows,
    is_integer,
    short_repr,
    to_uint8,
)
from galip_runtime.bundle.manifest import Dimensions
from galip_runtime.errors import UsageError
from galip_runtime.image import as_pil_images, encode_png, picture_metadata
from galip_runtime.interpolation import check_corners, check_steps, interpolate_corners, lerp, slerp
from galip_runtime.noise import MAX_SEED, check_seed
from galip_runtime.noise import noise as noise_of
from galip_runtime.sentence_cache import CAPTIONS_AT_ONCE, SentenceCache
from galip_runtime.tokenizer import Tokenizer, as_prompts, trim

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

_Seeds = int | Sequence[int] | npt.NDArray[np.integer]
_CACHED_SENTENCES = 1024
_FRESH_SEEDS = 2**32  # short enough to be typed again, and exact in any JSON reader


class PromptCut(UserWarning):
    """A prompt is longer than the text encoder's context: its end has no effect on the picture."""


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

    def close(self) -> None:  # noqa: B027  # most implementations have nothing to free
        """Free the memory that the model takes. It cannot be used afterwards."""

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
        texts = _some(as_prompts(prompts), "prompt")
        tokens = self.tokenizer.encode(texts)
        self._warn_of_cuts(texts, tokens)
        return self._sentences(tokens, self.encode_tokens)

    def _warn_of_cuts(self, prompts: Sequence[str], tokens: npt.NDArray[np.int64]) -> None:
        """Issue one `PromptCut` for the first prompt that is cut, if any."""
        for index in np.flatnonzero(tokens[:, -1]).tolist():  # only a full row may be cut
            if left_out := self.tokenizer.left_out(prompts[index]):
                warnings.warn(
                    f"prompt {index} has more than {self.tokenizer.context_length - 2} tokens and is cut: "
                    f"{left_out!r:.80} has no effect",
                    PromptCut,
                    stacklevel=3,
                )
                return

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
        chosen = _one_of(seed, seeds)
        if chosen is None:
            raise UsageError("noise needs seeds: give `seed` for one or `seeds` for several")
        return noise_of(_as_seeds(chosen), self.dimensions.noise_dim, truncation)

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
        texts = _some(as_prompts(prompts), "prompt")
        chosen = _one_of(seed, seeds)
        numbers = seed_series(None, len(texts)) if chosen is None else _as_seeds(chosen)
        count = max(len(texts), len(numbers))
        if len(texts) not in (1, count) or len(numbers) not in (1, count):
            raise UsageError(
                f"{len(texts)} prompts and {len(numbers)} seeds do not go together: "
                "give one of either, or as many of both"
            )
        sentence = np.broadcast_to(self.encode_text(texts), (count, self.dimensions.sentence_dim))
        noise = self.noise(numbers * (count // len(numbers)), truncation)
        pictures = self._pictures(noise, sentence, batch_size, progress)
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
    ) -> npt.NDArray[np.uint8]:
        """Return pictures between prompts, seeds or both: `lerp` of sentence vectors, `slerp` of noise.

        A strip, uint8 (steps, H, W, 3), runs from the first to the second, both included: two prompts with
        one seed, one prompt with two `seeds`, or two of each. A square, uint8 (steps * steps, H, W, 3), row
        by row, has four prompts or four `seeds`, or both, in its corners (top left, top right, bottom left,
        bottom right); with `square`, two prompts from left to right and two `seeds` from top to bottom.
        `steps`: at least 2; `seed`: from 0 to 2^64 - 1, None picks one; `progress` as in `generate`. Raises
        UsageError for arguments that do not fit.
        """
        texts = _some(as_prompts(prompts), "prompt")
        if not isinstance(square, bool | np.bool_):
            raise UsageError(f"square is True or False, not {short_repr(square)}")
        chosen = _one_of(seed, seeds)
        numbers = seed_series() if chosen is None else _as_seeds(chosen)
        check_corners(len(texts), len(numbers), square)
        is_square = square or 4 in (len(texts), len(numbers))
        steps = check_steps(steps, is_square)
        across = np.linspace(0.0, 1.0, steps)
        down = np.zeros(1)
        if is_square:
            across, down = np.tile(across, steps), np.repeat(across, steps)
        sentence = interpolate_corners(self.encode_text(texts), across, down, lerp)
        noise = interpolate_corners(self.noise(numbers, truncation), down if square else across, down, slerp)
        count = max(len(sentence), len(noise))
        return self._pictures(_repeated(noise, count), _repeated(sentence, count), batch_size, progress)

    def _pictures(
        self, noise: Floats, sentence: Floats, batch_size: int, progress: Progress | None
    ) -> npt.NDArray[np.uint8]:
        size = (self.dimensions.image_height, self.dimensions.image_width)
        try:
            pictures = np.empty((len(noise), *size, 3), np.uint8)
        except (MemoryError, ValueError) as error:  # ValueError: more than the address space
            raise UsageError(
                f"{len(noise):,} pictures of {size[1]}x{size[0]} pixels do not fit into memory; generate "
                "fewer at a time"
            ) from error
        report = progress or _no_progress
        report(0, len(noise))
        for part in batches(len(noise), check_count(batch_size, "batch_size")):
            pictures[part] = self.decode_pictures(noise[part], sentence[part])
            report(min(part.stop, len(noise)), len(noise))
        return pictures

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


def _one_of(seed: int | None, seeds: _Seeds | None) -> _Seeds | None:
    """Return whichever is given. Raises UsageError if both are, or `seed` is not a seed."""
    if seed is not None and seeds is not None:
        raise UsageError("give `seed` for one or `seeds` for several, not both")
    return seeds if seed is None else check_seed(seed)


def _repeated(rows: Floats, count: int) -> Floats:
    return np.broadcast_to(rows, (count, rows.shape[1]))


def seed_series(seed: int | None = None, count: int = 1) -> list[int]:
    """Return `count` consecutive seeds from `seed` on; None picks a random first one, below 2^32.

    Raises UsageError for a count below 1 or above `MAX_PICTURES`, and where the series would pass 2^64 - 1.
    """
    count = check_count(count, "count", most=MAX_PICTURES)
    first = secrets.randbelow(_FRESH_SEEDS) if seed is None else check_seed(seed)
    if first + count - 1 > MAX_SEED:
        raise UsageError(f"{count} seeds from {first} on pass the largest, {MAX_SEED} (2^64 - 1)")
    return list(range(first, first + count))


def _some(items: list[str], name: str) -> list[str]:
    if not items:
        raise UsageError(f"there is no {name}: give at least one")
    return items


def _as_seeds(seeds: _Seeds) -> list[int]:
    if isinstance(seeds, np.ndarray) and not seeds.ndim:
        seeds = seeds[()]
    if is_integer(seeds):
        return [check_seed(seeds)]
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Sequence | np.ndarray) or not len(seeds):
        raise UsageError(f"seeds are a whole number or a sequence of at least one, not {short_repr(seeds)}")
    return [check_seed(seed) for seed in seeds]
