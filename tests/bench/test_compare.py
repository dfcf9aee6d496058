"""Two reports: what changed beyond noise."""

import copy

import numpy as np
import pytest
from galip_bench.compare import _change, compare, differences, lost, other_changes
from galip_runtime.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

MEASURED = "bundle-cpu-fp32"


@pytest.fixture
def steady(report):
    """As of a quiet machine: 1 % of noise."""
    rng = np.random.default_rng(0)

    def make():
        quiet = copy.deepcopy(report)
        for base, subject in zip((0.02, 0.01), quiet["subjects"].values(), strict=True):
            for latency in subject["latency"].values():
                latency["samples"]["total"] = list(base * rng.normal(1, 0.01, 30))
        quiet["launches"] = [10, 10, 10]
        return quiet

    return make


def test_a_slowdown_of_a_tenth_is_found_and_noise_is_not(steady, slowed):
    old, new = steady(), steady()
    assert not any(each.is_slower(0.05) or each.is_faster(0.05) for each in compare(old, new))
    found = [each for each in compare(old, slowed(new, MEASURED, 1.1)) if each.is_slower(0.05)]
    assert [(each.subject, each.batch) for each in found] == [(MEASURED, 1), (MEASURED, 3)]
    assert all(1.08 < each.change < 1.12 for each in found)
    everywhere = slowed(slowed(new, MEASURED, 1.3), "eager-fp32", 1.3)
    assert {each.subject for each in compare(old, everywhere) if each.is_slower(0.05)} == {"eager-fp32"}


def test_times_of_two_machines_are_not_compared_but_ratios_are(steady, slowed):
    old, new = steady(), slowed(slowed(steady(), MEASURED, 2), "eager-fp32", 2)
    new["machine"]["cpu"] = "another"
    changes = compare(old, new)
    assert {each.subject for each in changes} == {MEASURED}
    assert not any(each.is_slower(0.05) for each in changes)
    assert "machine cpu: " in "".join(differences(old, new))
    new["subjects"] = {"eager-fp32": new["subjects"]["eager-fp32"]}
    with pytest.raises(UsageError, match="no subject and batch size in common"):
        compare(old, new)


def test_what_is_no_longer_measured(steady):
    old, new = steady(), steady()
    assert lost(old, new) == []
    new["subjects"][MEASURED]["latency"] = {}
    new["warnings"] = [f"{MEASURED}: 5 of 5 pictures have NaN or infinity"]
    assert lost(old, new) == [f"{MEASURED} is no longer measured: {new['warnings'][0]}"]
    del new["subjects"][MEASURED]
    new["warnings"], new["unavailable"] = [], {MEASURED: "no such device"}
    assert lost(old, new) == [f"{MEASURED} is no longer measured: no such device"]


def test_launches_that_differ_are_no_slowdown(steady):
    """A tenth slower in one process of three is what processes do; in all of them it is the code."""
    old, new = steady(), steady()
    for report, levels in ((old, (1, 1.04, 0.97)), (new, (1.25, 1, 1.02))):
        for latency in report["subjects"][MEASURED]["latency"].values():
            total = latency["samples"]["total"]
            latency["samples"]["total"] = [value * levels[row // 10] for row, value in enumerate(total)]
    assert not any(each.is_slower(0.01) for each in compare(old, new))


@given(
    st.lists(st.floats(0.5, 2), min_size=2, max_size=4), st.lists(st.floats(0.5, 2), min_size=2, max_size=4)
)
@settings(max_examples=200, deadline=None)
def test_the_interval_of_a_change_has_it_in(old, new):
    """Whatever the launches' medians are: also equal ones on one side, which leave few degrees of freedom."""
    change, (low, high) = _change([np.array(old), np.array(new)], [[1] * len(old), [1] * len(new)])
    assert 0 < low <= change * (1 + 1e-12)
    assert high >= change * (1 - 1e-12)


def test_one_degree_of_freedom_is_a_wide_interval():
    change, (low, high) = _change([np.array([1.0, 1.0]), np.array([1.0, 1.1])], [[1, 1], [1, 1]])
    reach = 12.706 * np.std(np.log([1.0, 1.1]), ddof=1) / 2**0.5
    assert high / change == pytest.approx(np.exp(reach))
    assert change / low == pytest.approx(np.exp(reach))


def test_what_else_changed(steady):
    old = steady()
    new = copy.deepcopy(old)
    assert other_changes(old, new) == []
    assert differences(old, new) == []
    changed = new["subjects"][MEASURED]
    changed["disk_bytes"] = 2 * changed["disk_bytes"]
    old["subjects"][MEASURED]["parity"]["psnr_min"] = None
    changed["parity"] |= {"not_finite": 2, "psnr_min": 51.0}
    run = {"peak_device_bytes": None, "seconds": {}}
    for report, peak in ((old, 10**8), (new, 2 * 10**8)):
        report["subjects"][MEASURED]["fresh"] = [{"peak_resident_bytes": peak, **run}]
        report["subjects"][MEASURED]["fid"] = {"delta_interval_95": [peak / 1e9 - 0.01, peak / 1e9 + 0.01]}
    lines = "\n".join(other_changes(old, new))
    assert "peak memory, MB: 100.0 → 200.0" in lines
    assert "size on disk" in lines
    assert "pictures with NaN or infinity: 0 → 2" in lines
    assert "lowest PSNR, dB: inf → 51.0" in lines
    assert "change of FID: 0.090 to 0.110 → 0.190 to 0.210" in lines
    new["config"]["rounds"] = 7
    new["machine"]["versions"]["torch"] = "9"
    said = differences(old, new)
    assert [line.split(":")[0] for line in said] == ["machine versions torch", "config rounds"]
