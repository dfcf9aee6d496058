"""Whether the picture is still the same."""

import numpy as np
import pytest
from galip_bench.parity import FEATURE_PICTURES, ReferencePictures, generate_raw, side_by_side

from galip.metrics import Inception


@pytest.fixture
def reference():
    return np.random.default_rng(0).uniform(-1, 1, (6, 3, 16, 16)).astype(np.float32)


def test_nan_is_counted(reference):
    result = reference + 1e-3
    result[1, 0, 0, 0], result[4, 2, 3, 3] = np.nan, np.inf
    result[2, 1, 5, 5] += 0.5
    parity = ReferencePictures(reference).parity_of(result)
    assert (parity.pictures, parity.not_finite, parity.worst) == (6, 2, 2)
    assert parity.max_abs == pytest.approx(0.501, rel=1e-3)
    assert side_by_side(reference[2], result[2]).shape == (16, 48, 3)
    nothing = ReferencePictures(reference).parity_of(np.full_like(reference, np.nan))
    assert (nothing.not_finite, nothing.max_abs, nothing.worst) == (6, None, None)


def test_psnr_by_hand(reference):
    level = np.zeros_like(reference)
    shifted = level + 2 * 2 / 255  # two of 255 levels
    parity = ReferencePictures(level).parity_of(shifted.astype(np.float32))
    assert parity.psnr_min == parity.psnr_median == pytest.approx(20 * np.log10(255 / 2), abs=1e-9)
    assert (parity.psnr_p1, parity.equal) == (None, 0)  # of six pictures
    same = ReferencePictures(level).parity_of(level)
    assert (same.equal, same.psnr_min) == (6, None)
    many = np.zeros((200, 3, 8, 8), np.float32)
    shifts = (1 + np.arange(200, dtype=np.float32))[:, None, None, None] * 2 / 255
    percentile = ReferencePictures(many).parity_of(many + np.minimum(shifts, 1))
    levels = np.minimum(1 + np.arange(200), 127)
    assert percentile.psnr_p1 == pytest.approx(np.quantile(20 * np.log10(255 / levels), 0.01), abs=0.1)


def test_pictures_are_generated_at_every_size():
    sizes = []

    class Recorded:
        def encode_text(self, prompts):
            return np.zeros((len(prompts), 2), np.float32)

        def noise(self, seeds):
            return np.array(seeds, np.float32)[:, None]

        def _run_generator(self, noise, sentence):
            sizes.append(len(noise))
            return np.broadcast_to(noise[:, :, None, None], (len(noise), 3, 1, 1))

    pictures = generate_raw(Recorded(), ["a"] * 9, range(9), (1, 2, 4))
    np.testing.assert_array_equal(pictures[:, 0, 0, 0], np.arange(9))
    assert sizes == [1, 1, 1, 2, 1, 3]


def test_the_feature_distance_is_a_share_of_that_between_pictures(reference, small_inception):
    original = ReferencePictures(reference, Inception(small_inception))
    assert original.parity_of(reference).feature_distance_max == 0
    others = np.roll(reference, 1, axis=0)
    assert original.parity_of(others).feature_distance_median == pytest.approx(1)
    near = original.parity_of(reference + 0.02 * others)
    assert 0 < near.feature_distance_median <= near.feature_distance_max < 0.1
    alone = ReferencePictures(reference[:1], Inception(small_inception)).parity_of(others[:1])
    assert (alone.feature_distance_median, alone.feature_distance_max) == (None, None)


def test_the_feature_distance_is_of_the_first_pictures_that_are_finite(small_inception):
    pictures = np.random.default_rng(0).uniform(-1, 1, (FEATURE_PICTURES + 4, 3, 16, 16)).astype(np.float32)
    original = ReferencePictures(pictures, Inception(small_inception))
    late = pictures.copy()
    late[FEATURE_PICTURES:] *= -1
    assert original.parity_of(late).feature_distance_max == 0
    early = pictures.copy()
    early[0] = np.nan
    early[3] *= -1
    parity = original.parity_of(early)
    assert (parity.not_finite, parity.feature_distance_median) == (1, 0)
    assert parity.feature_distance_max > 0.5
    early[:FEATURE_PICTURES] = np.nan
    assert original.parity_of(early).feature_distance_max is None
