"""The sentence cache: a row is computed once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from galip_runtime.sentence_cache import SentenceCache


@pytest.fixture
def compute():
    """A function that doubles its rows and records how many it got in each call."""

    def double(rows):
        double.sizes.append(len(rows))
        return (2 * rows).astype(np.float32)

    double.sizes = []
    return double


def rows(*values):
    return np.array([[value, value + 0.5] for value in values])


def test_only_new_and_distinct_rows_are_computed(compute):
    cache = SentenceCache(10, at_once=10)
    results = cache(rows(1, 2, 1), compute)
    assert (results == 2 * rows(1, 2, 1)).all()
    assert results.dtype == np.float32
    assert (cache(rows(2, 3, 2), compute) == 2 * rows(2, 3, 2)).all()
    assert compute.sizes == [2, 1]


def test_results_are_the_caller_s_own(compute):
    cache = SentenceCache(10, at_once=10)
    cache(rows(1), compute)[:] = 7
    assert (cache(rows(1), compute) == 2 * rows(1)).all()
    assert compute.sizes == [1]


def test_the_rows_used_last_stay(compute):
    cache = SentenceCache(2, at_once=10)
    cache(rows(1, 2), compute)
    cache(rows(1), compute)
    cache(rows(3), compute)  # instead of 2
    assert len(cache) == 2
    cache(rows(1, 3), compute)
    assert compute.sizes == [2, 1]
    cache(rows(2), compute)
    assert compute.sizes == [2, 1, 1]


def test_more_rows_than_the_cache_holds(compute):
    cache = SentenceCache(2, at_once=3)
    assert (cache(rows(*range(8)), compute) == 2 * rows(*range(8))).all()
    assert compute.sizes == [3, 3, 2]
    assert len(cache) == 2


def test_a_failure_is_not_cached(compute):
    cache = SentenceCache(10, at_once=10)
    error = ArithmeticError("broken")

    def fail(rows):
        raise error

    with pytest.raises(ArithmeticError) as info:
        cache(rows(1), fail)
    assert info.value is error
    assert len(cache) == 0
    assert (cache(rows(1), compute) == 2 * rows(1)).all()


def test_threads_can_share_a_cache(compute):
    cache = SentenceCache(5, at_once=2)
    jobs = [rows(*np.random.default_rng(seed).integers(0, 12, 6)) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for job, results in zip(jobs, pool.map(lambda job: cache(job, compute), jobs), strict=True):
            assert (results == 2 * job).all()
    assert len(cache) == 5
