"""Whether the picture is still the same."""

import numpy as np
import pytest
from galip_bench.parity import FEATURES, Original, side_by_side

from galip.metrics import Inception


@pytest.fixture
def reference():
    return np.random.default_rng(0).uniform(-1, 1, (6, 3, 16, 16)).astype(np.float32)


def test_nan_is_counted(reference):
    result = reference + 1e-3
    result[1, 0, 0, 0], result[4, 2, 3, 3] = np.nan, np.inf
    result[2, 1, 5, 5] += 0.5
    parity = Original(reference).parity_of(result)
    assert (parity.pictures, parity.not_finite, parity.worst) == (6, 2, 2)
    assert parity.max_abs == pytest.approx(0.501, rel=1e-3)
    assert side_by_side(reference[2], result[2]).shape == (16, 48, 3)
    nothing = Original(reference).parity_of(np.full_like(reference, np.nan))
    assert (nothing.not_finite, nothing.max_abs, nothing.worst) == (6, None, None)


def test_psnr_by_hand(reference):
    level = np.zeros_like(reference)
    shifted = level + 2 * 2 / 255  # two of 255 levels
    parity = Original(level).parity_of(shifted.astype(np.float32))
    assert parity.psnr_p1 == parity.psnr_median == pytest.approx(20 * np.log10(255 / 2), abs=1e-9)


def test_the_feature_distance_is_a_share_of_that_between_pictures(reference, small_inception):
    original = Original(reference, Inception(small_inception))
    assert original.parity_of(reference).feature_distance_max == 0
    others = np.roll(reference, 1, axis=0)
    assert original.parity_of(others).feature_distance_median == pytest.approx(1)
    near = original.parity_of(reference + 0.02 * others)
    assert 0 < near.feature_distance_median <= near.feature_distance_max < 0.1
    alone = Original(reference[:1], Inception(small_inception)).parity_of(others[:1])
    assert (alone.feature_distance_median, alone.feature_distance_max) == (None, None)


def test_the_feature_distance_is_of_the_first_pictures_that_are_finite(small_inception):
    pictures = np.random.default_rng(0).uniform(-1, 1, (FEATURES + 4, 3, 16, 16)).astype(np.float32)
    original = Original(pictures, Inception(small_inception))
    late = pictures.copy()
    late[FEATURES:] *= -1
    assert original.parity_of(late).feature_distance_max == 0
    early = pictures.copy()
    early[0] = np.nan
    early[3] *= -1
    found = original.parity_of(early)
    assert (found.not_finite, found.feature_distance_median) == (1, 0)
    assert found.feature_distance_max > 0.5
    early[:FEATURES] = np.nan
    assert original.parity_of(early).feature_distance_max is None
