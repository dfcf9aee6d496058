"""What repeated measurements say."""

import numpy as np
import pytest
from galip_bench.statistics import (
    bootstrap_medians,
    median_interval,
    ratio_of,
    relative_spread,
    rerun_interval,
    student_t,
    summarise,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_summary_of_anything(samples):
    summary = summarise(samples)
    assert summary.min <= summary.p50
    assert summary.count == len(samples)
    assert summary.min <= summary.mean * (1 + 1e-12)
    low, high = summary.median_interval_95
    assert low <= summary.p50 * (1 + 1e-12)
    assert high >= summary.p50 * (1 - 1e-12)
    assert (summary.p90 is None) == (len(samples) < 50)


def test_quantiles_only_with_samples_enough():
    assert summarise(range(1, 100)).p95 is None
    assert summarise(range(1, 101)).p95 == pytest.approx(95.05)
    assert summarise(range(1, 500)).p99 is None
    assert summarise(range(1, 501)).p99 == pytest.approx(495.01)


def test_a_ratio_cancels_what_slows_a_whole_round():
    rng = np.random.default_rng(0)
    load = rng.uniform(1, 3, 40)
    ratio = ratio_of(0.7 * load * rng.normal(1, 0.01, 40), load)
    assert ratio.median == pytest.approx(0.7, rel=0.01)
    assert ratio.interval_95[1] - ratio.interval_95[0] < 0.02
    assert relative_spread(load) > 0.3


def test_processes_are_resampled_too():
    """Each process 3 % apart, 0.1 % within: three processes say no more than three numbers do."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(level, 0.001, 30) for level in (0.97, 1.0, 1.03)])
    low, high = median_interval(values, [30, 30, 30])
    assert low < 0.98
    assert high > 1.02
    pooled = median_interval(values)
    assert pooled[1] - pooled[0] < high - low
    uneven = bootstrap_medians(np.arange(7.0), [1, 6])
    assert set(uneven) <= set(np.arange(0, 7, 0.5))
    assert uneven.max() > 4
    assert uneven.min() == 0


def test_the_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = median_interval(rng.exponential(size=40))
        covered += low <= np.log(2) <= high
    assert 0.88 <= covered / 200 <= 1


@pytest.mark.parametrize("launches", [(17, 17, 17), (4, 4, 4), (10, 10, 10, 10, 10)], ids=str)
@pytest.mark.parametrize("within", [0.002, 0.01, 0.05])
def test_another_run_is_where_it_is_expected(launches, within):
    """Processes that differ by 2 % among themselves, rounds by less and by more."""
    rng = np.random.default_rng(1)

    def another():
        levels = rng.normal(1, 0.02, len(launches))
        return np.concatenate(
            [rng.normal(level, within, size) for level, size in zip(levels, launches, strict=True)]
        )

    covered = 0
    for _ in range(500):
        low, high = rerun_interval(another(), launches)
        covered += low <= np.median(another()) <= high
    assert covered / 500 >= 0.92


def test_one_process_says_nothing_about_another_run():
    assert rerun_interval([1.0, 2.0], [2]) is None
    assert ratio_of([1.0, 2.0], [1.0, 1.0], [2]).rerun_interval_95 is None
    low, high = rerun_interval([1.0, 10.0], [1, 1])
    assert 0 < low < high


def test_student_s_t():
    for freedom in range(1, 11):
        assert abs(student_t(freedom) - stats.t.ppf(0.975, freedom)) < 1e-3
    assert student_t(1000) == student_t(10)
