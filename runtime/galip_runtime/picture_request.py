"""Arguments of `generate` and `interpolate`, checked and turned into what a model draws from.

N pictures of C captions of L tokens; Z numbers of noise, D numbers in a sentence vector.
"""

import secrets
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import MAX_PICTURES, Floats, check_count, is_integer, short_repr
from galip_runtime.errors import UsageError
from galip_runtime.interpolation import check_corners, check_steps, interpolate_corners, lerp, slerp
from galip_runtime.noise import MAX_SEED, check_seed, noise
from galip_runtime.tokenizer import Tokenizer, as_prompts

__all__ = [
    "PictureRequest",
    "PromptCut",
    "Seeds",
    "as_seeds",
    "corners_of",
    "count_of",
    "encode_prompts",
    "generate_request",
    "interpolate_request",
    "one_of",
    "seed_series",
]

Seeds = int | Sequence[int] | npt.NDArray[np.integer]
_FRESH_SEEDS = 2**32  # short enough to be typed again, and exact in any JSON reader


class PromptCut(UserWarning):
    """A prompt is longer than the text encoder's context: its end has no effect on the picture."""


@dataclass(frozen=True)
class PictureRequest:
    """N pictures to draw, each from its noise and its captions; `len(request)` is N."""

    tokens: npt.NDArray[np.int64]
    """(C, L): one caption for all pictures, one for each, or the corners of an interpolation"""
    noise: Floats
    """(N, Z)"""
    weights: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
    """of an interpolation's corners, across and down, each (N); None where nothing is interpolated"""

    def __len__(self) -> int:
        return len(self.noise)

    def captions(self, index: int) -> npt.NDArray[np.int64]:
        """Return the tokens of the captions that picture `index` depends on, int64 (1 … 4, L)."""
        if self.weights is not None or len(self.tokens) == 1:
            return self.tokens
        return self.tokens[index : index + 1]

    def sentence(self, index: int, vectors: npt.NDArray[np.float32]) -> Floats:
        """Return the sentence vector of picture `index`, (1, D), from those of its captions."""
        if self.weights is None:
            return vectors
        across, down = (weight[index : index + 1] for weight in self.weights)
        return interpolate_corners(vectors, across, down, lerp)

    def sentences(self, vectors: npt.NDArray[np.float32]) -> Floats:
        """Return the sentence vectors of all pictures, (N, D), from those of all captions, (C, D)."""
        rows = vectors if self.weights is None else interpolate_corners(vectors, *self.weights, lerp)
        return _repeated(rows, len(self))


def generate_request(
    tokenizer: Tokenizer,
    noise_dim: int,
    prompts: str | Sequence[str],
    seeds: Seeds | None,
    seed: int | None,
    truncation: float | None,
    most: int | None = None,
) -> PictureRequest:
    """Check `generate`'s arguments. Raises UsageError, also for more than `most` pictures.

    Warns of a prompt that is cut (`PromptCut`).
    """
    texts = _some(as_prompts(prompts))
    chosen = one_of(seed, seeds)
    numbers = seed_series(None, len(texts)) if chosen is None else as_seeds(chosen)
    count = count_of(texts, numbers)
    _check_fits(count, most)
    tokens = encode_prompts(tokenizer, texts)
    return PictureRequest(tokens, noise(numbers * (count // len(numbers)), noise_dim, truncation))


def interpolate_request(
    tokenizer: Tokenizer,
    noise_dim: int,
    prompts: str | Sequence[str],
    steps: int,
    seeds: Seeds | None,
    seed: int | None,
    square: bool,
    truncation: float | None,
    most: int | None = None,
) -> PictureRequest:
    """Check `interpolate`'s arguments. Raises UsageError, also for more than `most` pictures.

    Warns of a prompt that is cut (`PromptCut`).
    """
    texts = _some(as_prompts(prompts))
    if not isinstance(square, bool | np.bool_):
        raise UsageError(f"square is True or False, not {short_repr(square)}")
    chosen = one_of(seed, seeds)
    numbers = seed_series() if chosen is None else as_seeds(chosen)
    steps, is_square = corners_of(texts, numbers, steps, square)
    _check_fits(steps**2 if is_square else steps, most)
    across = np.linspace(0.0, 1.0, steps)
    down = np.zeros(steps)
    if is_square:
        across, down = np.tile(across, steps), np.repeat(across, steps)
    tokens = encode_prompts(tokenizer, texts)
    corners = noise(numbers, noise_dim, truncation)
    rows = interpolate_corners(corners, down if square else across, down, slerp)
    return PictureRequest(tokens, _repeated(rows, len(across)), (across, down))


def count_of(prompts: Sequence[str], seeds: Sequence[int]) -> int:
    """Return how many pictures prompts and seeds make. Raises UsageError if they do not go together."""
    count = max(len(prompts), len(seeds))
    if len(prompts) not in (1, count) or len(seeds) not in (1, count):
        raise UsageError(
            f"{len(prompts)} prompts and {len(seeds)} seeds do not go together: "
            "give one of either, or as many of both"
        )
    return count


def corners_of(prompts: Sequence[str], seeds: Sequence[int], steps: int, square: bool) -> tuple[int, bool]:
    """Return the checked steps of an interpolation, and whether it is a square of steps x steps pictures.

    Raises UsageError for corners that do not go together and for steps that cannot be used.
    """
    check_corners(len(prompts), len(seeds), square)
    is_square = bool(square) or 4 in (len(prompts), len(seeds))
    return check_steps(steps, is_square), is_square


def encode_prompts(tokenizer: Tokenizer, prompts: str | Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the tokens of at least one prompt, int64 (C, L). Warns of the first that is cut (`PromptCut`).

    Raises UsageError as `encode_text`.
    """
    texts = _some(as_prompts(prompts))
    tokens = tokenizer.encode(texts)
    for index in np.flatnonzero(tokens[:, -1]).tolist():  # only a full row may be cut
        if left_out := tokenizer.left_out(texts[index]):
            warnings.warn(
                f"prompt {index} has more than {tokenizer.context_length - 2} tokens and is cut: "
                f"{left_out!r:.80} has no effect",
                PromptCut,
                stacklevel=_level_of_caller(),
            )
            break
    return tokens


def _level_of_caller() -> int:
    """Return the `stacklevel` with which this function's caller warns about the line that called galip."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("galip_runtime."):
        frame, level = frame.f_back, level + 1
    return level


def one_of(seed: int | None, seeds: Seeds | None) -> Seeds | None:
    """Return whichever is given. Raises UsageError if both are, or `seed` is not a seed."""
    if seed is not None and seeds is not None:
        raise UsageError("give `seed` for one or `seeds` for several, not both")
    return seeds if seed is None else check_seed(seed)


def seed_series(seed: int | None = None, count: int = 1) -> list[int]:
    """Return `count` consecutive seeds from `seed` on; None picks a random first one, below 2^32.

    Raises UsageError for a count below 1 or above `MAX_PICTURES`, and where the series would pass 2^64 - 1.
    """
    count = check_count(count, "count", most=MAX_PICTURES)
    first = secrets.randbelow(_FRESH_SEEDS) if seed is None else check_seed(seed)
    if first + count - 1 > MAX_SEED:
        raise UsageError(f"{count} seeds from {first} on pass the largest, {MAX_SEED} (2^64 - 1)")
    return list(range(first, first + count))


def as_seeds(seeds: Seeds) -> list[int]:
    """Return one seed or several as a list. Raises UsageError for anything else, and for none."""
    if isinstance(seeds, np.ndarray) and not seeds.ndim:
        seeds = seeds[()]
    if is_integer(seeds):
        return [check_seed(seeds)]
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Sequence | np.ndarray) or not len(seeds):
        raise UsageError(f"seeds are a whole number or a sequence of at least one, not {short_repr(seeds)}")
    return [check_seed(seed) for seed in seeds]


def _some(prompts: list[str]) -> list[str]:
    if not prompts:
        raise UsageError("there is no prompt: give at least one")
    return prompts


def _check_fits(count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise UsageError(
            f"{count:,} pictures do not fit into a queue of {most}: ask for at most {most} at a time"
        )


def _repeated(rows: Floats, count: int) -> Floats:
    return np.broadcast_to(rows, (count, rows.shape[1]))
