"""What repeated measurements say."""

import numpy as np
import pytest
from galip_bench.summary import bootstrap_medians, median_interval, ratio_of, spread, summarise
from hypothesis import given, settings
from hypothesis import strategies as st


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
    assert spread(load) > 0.3


def test_processes_that_differ_are_in_the_interval():
    """Each launch 3 % apart, 0.1 % within: three launches say no more than three numbers do."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(level, 0.001, 30) for level in (0.97, 1.0, 1.03)])
    low, high = median_interval(values, [30, 30, 30])
    assert low < 0.98
    assert high > 1.02
    pooled = median_interval(values)
    assert pooled[1] - pooled[0] < high - low
    uneven = bootstrap_medians(np.arange(7.0), [1, 6])
    drawn = set(np.round(3 + (uneven - 3) / 2**0.5, 6))  # as they were before they were spread
    assert drawn <= set(np.arange(0, 7, 0.5))
    assert max(drawn) > 4
    assert min(drawn) == 0


@pytest.mark.parametrize(("launches", "between"), [((40,), 0.0), ((17, 17, 17), 0.0), ((17, 17, 17), 0.02)])
def test_the_interval_covers_another_run_as_often_as_it_says(launches, between):
    """Launches that differ by 2 % among themselves, rounds by 5 %."""
    rng = np.random.default_rng(1)

    def run():
        levels = rng.normal(1, between, len(launches))
        return np.concatenate(
            [rng.normal(level, 0.05, size) for level, size in zip(levels, launches, strict=True)]
        )

    covered = 0
    for _ in range(300):
        low, high = median_interval(run(), launches)
        covered += low <= np.median(run()) <= high
    assert covered / 300 >= 0.88
