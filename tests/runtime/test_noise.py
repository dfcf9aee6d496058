"""Noise: the same numbers for a seed everywhere, standard normal, and cut by truncation."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import UsageError
from galip_runtime.noise import MAX_SEED, NOISE_DEFINITION, noise, philox4x32, truncate
from hypothesis import given
from hypothesis import strategies as st

VECTORS = json.loads(gzip.decompress((Path(__file__).parents[1] / "vectors" / "noise.json.gz").read_bytes()))

# Random123's known answers (kat_vectors, philox4x32 10): counter, key, words
PI = "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0"
KNOWN = [
    ("00000000 " * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words_of(text):
    return [int(word, 16) for word in text.split()]


def reference_words(seed, block):
    """Compute Philox 4x32-10 a second time, in Python's integers."""
    c0, c1, c2, c3 = block & 0xFFFFFFFF, block >> 32, 0, 0
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def reference_noise(seed, dim):
    values = []
    for block in range(math.ceil(dim / 4)):
        u = [(word + 0.5) / 2**32 for word in reference_words(seed, block)]
        for i in (0, 2):
            radius, angle = math.sqrt(-2 * math.log(u[i])), 6.283185307179586 * u[i + 1]
            values += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(values[:dim], np.float64).astype(np.float32)


@pytest.mark.parametrize(("counter_and_key", "words"), KNOWN)
def test_philox_gives_the_authors_known_answers(counter_and_key, words):
    numbers = words_of(counter_and_key)
    assert philox4x32(numbers[:4], numbers[4:]).tolist() == words_of(words)


def of_bits(text):
    return np.frombuffer(bytes.fromhex(text), ">f4").astype(np.float32)


def of_words(text):
    return np.frombuffer(bytes.fromhex(text), ">u4").tolist()


def test_published_vectors():
    assert len(VECTORS["rows"]) >= 1000
    for seed, expected_words, bits in VECTORS["rows"]:
        key = [int(seed) & 0xFFFFFFFF, int(seed) >> 32]
        assert philox4x32([[0, 0, 0, 0], [1, 0, 0, 0]], key).reshape(-1).tolist() == of_words(expected_words)
        # one unit in the last place: a maths library may round a float64 the other way
        np.testing.assert_array_max_ulp(noise([int(seed)], 8)[0], of_bits(bits), maxulp=1)


def test_published_truncated_vectors():
    for seed, cut, bits in VECTORS["truncated"]:
        np.testing.assert_array_max_ulp(noise([int(seed)], 32, cut)[0], of_bits(bits), maxulp=1)


def test_the_vectors_belong_to_this_definition():
    assert VECTORS["definition"] == NOISE_DEFINITION


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 123456789012345678, MAX_SEED])
@pytest.mark.parametrize("dim", [1, 4, 100, 101])
def test_noise_equals_a_second_implementation(seed, dim):
    row = noise([seed], dim)
    assert row.dtype == np.float32
    assert row.shape == (1, dim)
    np.testing.assert_array_max_ulp(row[0], reference_noise(seed, dim), maxulp=1)


def test_a_row_depends_on_its_seed_alone():
    seeds = [7, 0, MAX_SEED, 7, 3]
    rows = noise(seeds, 100)
    for seed, row in zip(seeds, rows, strict=True):
        assert (noise([seed], 100)[0] == row).all()
        assert (noise([seed], 37)[0] == row[:37]).all()
    assert len(np.unique(rows, axis=0)) == 4


def test_noise_is_standard_normal():
    values = noise(range(2000), 100).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1
    neighbours = np.corrcoef(values[:, :4], rowvar=False) - np.eye(4)
    assert np.abs(neighbours).max() < 0.1


@pytest.mark.parametrize("seeds", [np.array([1, 2]), np.array([1, 2], np.uint64), range(1, 3), (1, 2)])
def test_any_flat_sequence_of_integers_works(seeds):
    assert (noise(seeds, 8) == noise([1, 2], 8)).all()


def test_no_seeds_no_rows():
    assert noise([], 8).shape == (0, 8)


@pytest.mark.parametrize("seed", [-1, 2**64, True, np.True_, 1.0, "1", None, [1]])
def test_an_invalid_seed_is_refused(seed):
    with expect_error(UsageError, MAX_SEED) as info:
        noise([1, seed], 8)
    assert repr(seed) in str(info.value)


@pytest.mark.parametrize("seeds", [5, "12", b"12", {1}, np.ones((2, 2), int), np.array(3), np.array([0.5])])
def test_other_seeds_than_a_flat_sequence_are_refused(seeds):
    values = seeds if isinstance(seeds, np.ndarray) and seeds.dtype == float else [seeds]
    with expect_error(UsageError) as info:
        noise(seeds, 8)
    assert repr(values[0]) in str(info.value)


@pytest.mark.parametrize("dim", [0, -1, 2.0, True])
def test_an_invalid_dimension_is_refused(dim):
    with expect_error(UsageError, repr(dim)):
        noise([1], dim)


def test_vectors_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    text = text.replace("−", "-").replace("2^64 - 1", str(MAX_SEED))
    count = 0
    for seed, expected_words, bits in VECTORS["rows"]:
        words, numbers = (" ".join(map(str, row[:4])) for row in (of_words(expected_words), of_bits(bits)))
        count += f"| {seed} | {words} | {numbers} |" in text
    assert count == 3


# Truncation

NORMALS = st.lists(st.floats(-9, 9), min_size=2, max_size=20)


@given(numbers=NORMALS, cut=st.floats(0.01, 12))
def test_truncated_numbers_keep_sign_and_order_within_the_cut(numbers, cut):
    numbers = np.sort(np.array(numbers))
    truncated = truncate(numbers, cut)
    assert (np.abs(truncated) <= cut).all()
    assert (np.abs(truncated) <= np.abs(numbers) + 1e-9).all()
    assert (np.diff(truncated) >= -1e-12).all()
    assert (np.sign(truncated) * np.sign(numbers) >= 0).all()


@given(numbers=NORMALS)
def test_a_cut_far_outside_changes_nothing(numbers):
    np.testing.assert_allclose(truncate(np.array(numbers), 30.0), numbers, atol=1e-9)


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0])
def test_the_distribution_of_truncated_noise(cut):
    """Variance of the normal distribution cut at ±T: 1 - 2 T φ(T) / (Φ(T) - Φ(-T))."""
    values = noise(range(400), 100, cut).astype(np.float64)
    inside = math.erf(cut / math.sqrt(2))
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    assert values.var() == pytest.approx(1 - 2 * cut * density / inside, rel=0.02)
    assert abs(values.mean()) < 0.02


def test_truncated_vectors():
    """From SciPy's truncnorm, so that implementations in other languages can check theirs."""
    expected = [-1.5, -0.593447, 0.0, 0.3016698, 1.1518664]
    values = truncate(np.array([-40.0, -0.7, 0.0, 0.35, 1.5]), 1.5)
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("cut", [0, -1, math.nan, True, "1", [1.0]])
def test_an_invalid_truncation_is_refused(cut):
    with expect_error(UsageError, "truncation") as info:
        noise([1], 4, cut)
    assert repr(cut) in str(info.value)
