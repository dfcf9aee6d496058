"""What a run says beforehand about its phases."""

import re

import pytest

from galip.train.config import GanConfig
from galip.train.expectations import expectations
from galip.train.options import resolve


def steps_named(line):
    return [int(number) for number in re.findall(r"\d+", line)]


@pytest.fixture
def quick():
    def make(**options):
        return resolve(GanConfig, {"data": "d", "out": "o", **options}, "quick")

    return make


def test_a_line_a_phase(quick):
    assert [steps_named(line)[0] for line in expectations(quick())] == [1650, 1870, 1900]


def test_more_time_from_random_weights_and_less_with_larger_batches(quick):
    _, colours, outlines = steps_named(expectations(quick())[0])
    assert colours < outlines < 1650
    _, slow_colours, slow_outlines = steps_named(expectations(quick(init="", warmup_steps=3000))[0])
    assert (slow_colours, slow_outlines) == (5 * colours, 5 * outlines)
    assert steps_named(expectations(quick(batch_size=32))[0])[2] == -(-outlines // 2)


def test_outlines_are_not_promised_to_a_short_warm_up(quick):
    line = expectations(quick(warmup_steps=499))[0]
    assert steps_named(line) == [499, 500]
    assert "too short" in line


def test_phases_after_the_last_step_are_not_announced(quick):
    lines = expectations(quick(steps=100))
    assert [steps_named(line)[0] for line in lines] == [100]
    assert len(expectations(quick(steps=1700))) == 2


def test_galip_s_own_losses(quick):
    (line,) = expectations(quick(warmup_steps=0, paired_steps=0))
    assert steps_named(line) == [1900]
