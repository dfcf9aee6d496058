"""The figures that parity is judged by."""

import math

import numpy as np
import pytest
from galip_export import compare
from galip_runtime import QualityGateFailed


def test_figures():
    reference = np.array([[0.0, 2.0], [0.0, 2.0]], np.float32)
    figures = compare(reference, reference + np.array([[0.5, 0], [0, 0]], np.float32))
    assert figures.max_abs == 0.5
    assert figures.mean_abs == 0.125
    assert figures.std == 1.0
    assert figures.relative == 0.5
    assert figures.psnr_db == pytest.approx(10 * math.log10(4 / 0.0625))
    assert figures.cosine == pytest.approx(8 / math.sqrt(8 * 8.25))


def test_equal():
    figures = compare(np.ones((2, 3)), np.ones((2, 3)))
    assert (figures.max_abs, figures.relative, figures.psnr_db) == (0, 0, None)
    assert figures.cosine == pytest.approx(1)
    assert compare(np.zeros(3), np.zeros(3)).cosine == 1


def test_a_flat_reference_allows_nothing():
    assert compare(np.ones(3), np.ones(3) + 1e-9).relative == math.inf


def test_float16_is_compared_in_full():
    assert compare(np.full(9, 60000.0), np.full(9, 60000, np.float16)).max_abs == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_no_distance(value):
    good, bad = np.zeros((2, 2)), np.array([[0, value], [0, 0]])
    with pytest.raises(QualityGateFailed, match="1 of 4"):
        compare(good, bad)
    with pytest.raises(QualityGateFailed, match="1 of 4"):
        compare(bad, good)
