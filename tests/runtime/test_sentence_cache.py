"""What has been computed of a row is not computed again."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from galip_runtime.sentence_cache import SentenceCache


@pytest.fixture
def compute():
    """Doubles its rows; says how many it got, each time."""

    def double(rows):
        double.sizes.append(len(rows))
        return (2 * rows).astype(np.float32)

    double.sizes = []
    return double


def rows(*values):
    return np.array([[value, value + 0.5] for value in values])


def test_distinct_and_new_rows_alone_are_computed(compute):
    cache = SentenceCache(10, at_once=10)
    found = cache(rows(1, 2, 1), compute)
    assert (found == 2 * rows(1, 2, 1)).all()
    assert found.dtype == np.float32
    assert (cache(rows(2, 3, 2), compute) == 2 * rows(2, 3, 2)).all()
    assert compute.sizes == [2, 1]


def test_what_comes_back_is_the_caller_s_own(compute):
    cache = SentenceCache(10, at_once=10)
    cache(rows(1), compute)[:] = 7
    assert (cache(rows(1), compute) == 2 * rows(1)).all()
    assert compute.sizes == [1]


def test_the_ones_used_last_are_kept(compute):
    cache = SentenceCache(2, at_once=10)
    cache(rows(1, 2), compute)
    cache(rows(1), compute)
    cache(rows(3), compute)  # instead of 2
    assert len(cache) == 2
    cache(rows(1, 3), compute)
    assert compute.sizes == [2, 1]
    cache(rows(2), compute)
    assert compute.sizes == [2, 1, 1]


def test_more_rows_than_it_keeps(compute):
    cache = SentenceCache(2, at_once=3)
    assert (cache(rows(*range(8)), compute) == 2 * rows(*range(8))).all()
    assert compute.sizes == [3, 3, 2]
    assert len(cache) == 2


def test_what_fails_is_not_kept(compute):
    cache = SentenceCache(10, at_once=10)

    def fail(rows):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache(rows(1), fail)
    assert len(cache) == 0
    assert (cache(rows(1), compute) == 2 * rows(1)).all()


def test_threads_share_it(compute):
    cache = SentenceCache(5, at_once=2)
    jobs = [rows(*np.random.default_rng(seed).integers(0, 12, 6)) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for job, found in zip(jobs, pool.map(lambda job: cache(job, compute), jobs), strict=True):
            assert (found == 2 * job).all()
    assert len(cache) == 5
