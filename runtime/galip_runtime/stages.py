"""`Stages`: what a model computes, stage by stage: sentence vectors of prompts, noise of seeds, images.

N pictures, H by W pixels, Z numbers of noise, D numbers in a sentence vector; the model fixes the last four.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import Floats, check_finite, check_rows, to_uint8
from galip_runtime.bundle.manifest import Dimensions
from galip_runtime.errors import UsageError
from galip_runtime.noise import noise as noise_of
from galip_runtime.picture_request import as_seeds, encode_prompts, one_of
from galip_runtime.sentence_cache import CAPTIONS_AT_ONCE, SentenceCache
from galip_runtime.tokenizer import Tokenizer, trim

__all__ = ["Stages"]

_CACHED_SENTENCES = 1024


class Stages(ABC):
    """The stages from prompts to pictures. `TextToImage` joins them. Threads may share it."""

    def __init__(
        self, tokenizer: Tokenizer, dimensions: Dimensions, captions_at_once: int = CAPTIONS_AT_ONCE
    ) -> None:
        """`captions_at_once`: how many new captions `encode_text` encodes together, at most."""
        self.tokenizer = tokenizer
        self.dimensions = dimensions
        self._sentences = SentenceCache(_CACHED_SENTENCES, captions_at_once)

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
        return self.encode_cached(encode_prompts(self.tokenizer, prompts))

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

    def _rows(
        self, noise: Floats, sentence: Floats
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return both as float32, one row a picture. Raises UsageError as `decode`."""
        z = check_rows(noise, "noise", self.dimensions.noise_dim)
        e = check_rows(sentence, "sentence", self.dimensions.sentence_dim)
        if len(z) != len(e):
            raise UsageError(f"noise has {len(z)} rows and sentence {len(e)}; each picture takes one of both")
        return z, e
