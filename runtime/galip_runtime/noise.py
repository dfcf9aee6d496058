"""Noise: row i depends on seed i alone and is the same on every machine, backend and language.

    seed (64 bits) --Philox 4x32-10--> 32-bit words --> uniforms --Box-Muller--> normals

Philox is the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). `NOISE_DEFINITION` has the details; a bundle's manifest carries it, and a bundle with another
definition is refused.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import check_count, is_integer, short_repr
from galip_runtime.errors import UsageError

__all__ = [
    "MAX_SEED",
    "NOISE_DEFINITION",
    "check_seed",
    "check_truncation",
    "noise",
    "philox4x32",
    "truncate",
]

MAX_SEED = 2**64 - 1

NOISE_DEFINITION: dict[str, str] = {
    "name": "philox4x32-10/box-muller",
    "key": "(seed mod 2^32, seed div 2^32), seed an integer in [0, 2^64 - 1]",
    "counter": "(block mod 2^32, block div 2^32, 0, 0); block b gives elements 4b to 4b+3",
    "uniforms": "u_i = (w_i + 0.5) / 2^32 for the block's words w_0 to w_3, in float64",
    "normals": (
        "for (i, j) in (0, 1), (2, 3): r = sqrt(-2 ln u_i), t = 6.283185307179586 * u_j; "
        "elements r cos t, r sin t, in float64"
    ),
    "rounding": "each element rounded to the nearest float32",
}

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # for words 0 and 2
_WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key between rounds
_ROUNDS = 10
_MAX_DIM = 2**24  # numbers in a row; models have hundreds
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Compute Philox 4x32-10: uint32 (..., 4).

    `counter`: (..., 4) and `key`: (..., 2), integers in [0, 2^32 - 1]; their leading axes broadcast.
    """
    counter, key = np.asarray(counter, np.uint64), np.asarray(key, np.uint64)
    shape = np.broadcast_shapes(counter.shape[:-1], key.shape[:-1])
    c0, c1, c2, c3 = (np.broadcast_to(counter[..., i], shape) for i in range(4))
    k0, k1 = key[..., 0], key[..., 1]
    for _ in range(_ROUNDS):
        # 32 x 32 -> 64 bits cannot overflow a uint64
        product0, product1 = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + np.uint64(_WEYL[0])) & _LOW, (k1 + np.uint64(_WEYL[1])) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def check_seed(seed: object) -> int:
    """Return `seed` as a Python int in [0, 2^64 - 1]. Raises UsageError otherwise, even for floats."""
    if not is_integer(seed):
        raise UsageError(
            f"a seed must be a whole number from 0 to {MAX_SEED} (2^64 - 1), not {short_repr(seed)}"
        )
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(
            f"seed {short_repr(seed)} is out of range: use a whole number from 0 to {MAX_SEED} (2^64 - 1)"
        )
    return int(seed)


def check_truncation(truncation: float | None) -> float | None:
    """Return `truncation` as a finite float above 0, or None. Raises UsageError for anything else."""
    if truncation is None:
        return None
    is_number = is_integer(truncation) or isinstance(truncation, float | np.floating)
    try:
        value = float(truncation) if is_number else 0.0
    except OverflowError:  # a whole number too large for a float
        value = math.inf
    if not 0 < value < math.inf:
        raise UsageError(f"truncation must be a number above 0, not {short_repr(truncation)}")
    return value


def truncate(normals: npt.NDArray[np.float64], truncation: float) -> npt.NDArray[np.float64]:
    """Map standard normal numbers to the same quantiles of the normal distribution cut at ±`truncation`.

    The truncation trick of BigGAN (Brock et al. 2019, section 3.1) without resampling: z becomes
    Φ⁻¹(½ + (Φ(z) - ½)(Φ(T) - Φ(-T))), so a seed's picture changes smoothly with T, and T → ∞ leaves z as is.
    """
    inverse = NormalDist().inv_cdf
    outside = math.erfc(truncation / math.sqrt(2))  # P(|z| > T)
    tails = [0.5 * math.erfc(abs(z) / math.sqrt(2)) for z in normals.flat]  # P(Z > |z|), exact in the tail
    # tail p of the cut distribution is the tail p (1 - outside) + outside / 2 of the whole one
    magnitudes = [-inverse(max(p * (1 - outside) + outside / 2, 5e-324)) for p in tails]
    return np.copysign(np.minimum(magnitudes, truncation).reshape(normals.shape), normals)


def noise(
    seeds: Sequence[int] | npt.NDArray[np.integer], dim: int, truncation: float | None = None
) -> npt.NDArray[np.float32]:
    """Return standard normal noise, float32 (N, dim), one row per seed.

    `seeds`: N integers in [0, 2^64 - 1]; `dim`: numbers in a row, at least 1; `truncation`: where to cut the
    distribution (`truncate`), None for nowhere.
    Raises UsageError for a seed out of range or of another type, for seeds that aren't one flat sequence,
    for a `dim` below 1 and a `truncation` not above 0.
    """
    threshold = check_truncation(truncation)
    is_flat = seeds.ndim == 1 if isinstance(seeds, np.ndarray) else isinstance(seeds, Sequence)
    if not is_flat or isinstance(seeds, str | bytes):
        raise UsageError(f"seeds must be one flat sequence of whole numbers, not {short_repr(seeds)}")
    check_count(dim, "the noise's dimension", most=_MAX_DIM)
    numbers = [check_seed(seed) for seed in seeds]
    key = np.array([(seed & 0xFFFFFFFF, seed >> 32) for seed in numbers], np.uint64).reshape(-1, 1, 2)

    blocks = -(-int(dim) // 4)
    counter = np.zeros((blocks, 4), np.uint64)
    counter[:, 0] = np.arange(blocks)  # a row of 2^34 numbers would need the second word
    words = philox4x32(counter, key)  # (N, blocks, 4)

    uniforms = (words.astype(np.float64) + 0.5) / 2.0**32  # never 0 or 1
    radius = np.sqrt(-2.0 * np.log(uniforms[..., 0::2]))  # (N, blocks, 2)
    angle = 6.283185307179586 * uniforms[..., 1::2]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)  # (N, blocks, 2, 2)
    rows = normals.reshape(len(numbers), blocks * 4)[:, :dim]
    return (rows if threshold is None else truncate(rows, threshold)).astype(np.float32)
