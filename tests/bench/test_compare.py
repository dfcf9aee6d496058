"""Two reports: what changed by more than noise."""

import copy
import dataclasses
import re

import numpy as np
import pytest
from galip_bench.compare import _change, compare, differences, lost, other_changes
from galip_bench.report import ColdStart, FidParity, Report
from galip_runtime.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

MEASURED = "bundle-cpu-fp32"


def changed(report, subject, **changes):
    """Return the report with other fields of a subject."""
    subjects = {**report.subjects, subject: dataclasses.replace(report.subjects[subject], **changes)}
    return dataclasses.replace(report, subjects=subjects)


@pytest.fixture
def steady(report):
    """Return reports as of a quiet machine: 1 % of noise."""
    rng = np.random.default_rng(0)

    def make():
        quiet = copy.deepcopy(report)
        for base, subject in zip((0.02, 0.01), quiet.subjects.values(), strict=True):
            for latency in subject.latency.values():
                latency.samples["total"] = list(base * rng.normal(1, 0.01, 30))
        quiet.launches[:] = [10, 10, 10]
        return quiet

    return make


def test_a_slowdown_of_a_tenth_is_found_and_noise_is_not(steady, slowed):
    old, new = steady(), steady()
    assert not any(change.is_slower(0.05) or change.is_faster(0.05) for change in compare(old, new))
    changes = [change for change in compare(old, slowed(new, MEASURED, 1.1)) if change.is_slower(0.05)]
    assert [(change.subject, change.batch) for change in changes] == [(MEASURED, 1), (MEASURED, 3)]
    assert all(1.08 < change.change < 1.12 for change in changes)
    everywhere = slowed(slowed(new, MEASURED, 1.3), "eager-fp32", 1.3)
    assert {change.subject for change in compare(old, everywhere) if change.is_slower(0.05)} == {"eager-fp32"}


def test_times_of_two_machines_are_not_compared_but_ratios_are(steady, slowed):
    old, new = steady(), slowed(slowed(steady(), MEASURED, 2), "eager-fp32", 2)
    new = dataclasses.replace(new, machine=dataclasses.replace(new.machine, cpu="another"))
    changes = compare(old, new)
    assert {change.subject for change in changes} == {MEASURED}
    assert not any(change.is_slower(0.05) for change in changes)
    assert any("cpu" in line and "another" in line for line in differences(old, new))
    new = dataclasses.replace(new, subjects={"eager-fp32": new.subjects["eager-fp32"]})
    with pytest.raises(UsageError):
        compare(old, new)


def test_what_is_no_longer_measured(steady):
    old, new = steady(), steady()
    assert lost(old, new) == []
    new = changed(new, MEASURED, latency={})
    new.warnings[:] = [f"{MEASURED}: 5 of 5 pictures are broken"]
    (line,) = lost(old, new)
    assert line.startswith(MEASURED)
    assert line.endswith(new.warnings[0])
    del new.subjects[MEASURED]
    new = dataclasses.replace(new, warnings=[], unavailable={MEASURED: "no such device"})
    (line,) = lost(old, new)
    assert line.startswith(MEASURED)
    assert line.endswith("no such device")


def test_launches_that_differ_are_no_slowdown(steady):
    """A tenth slower in one process of three is what processes do; in all of them it is the code."""
    old, new = steady(), steady()
    for report, levels in ((old, (1, 1.04, 0.97)), (new, (1.25, 1, 1.02))):
        for latency in report.subjects[MEASURED].latency.values():
            total = latency.samples["total"]
            latency.samples["total"] = [value * levels[row // 10] for row, value in enumerate(total)]
    assert not any(change.is_slower(0.01) for change in compare(old, new))


@given(
    st.lists(st.floats(0.5, 2), min_size=2, max_size=4), st.lists(st.floats(0.5, 2), min_size=2, max_size=4)
)
@settings(max_examples=200, deadline=None)
def test_the_interval_of_a_change_has_it_in(old, new):
    """Whatever the processes' medians are, even equal on one side, which leaves few degrees of freedom."""
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
    assert other_changes(old, copy.deepcopy(old)) == []
    assert differences(old, copy.deepcopy(old)) == []
    subject = old.subjects[MEASURED]
    broken = dataclasses.replace(subject.parity, not_finite=2, psnr_min=51.0)
    new = changed(old, MEASURED, disk_bytes=2 * subject.disk_bytes, parity=broken)
    old = changed(old, MEASURED, parity=dataclasses.replace(subject.parity, psnr_min=None))

    def with_peak(report, peak):
        delta = peak / 1e9
        fid = FidParity(9, 0, 1.0, delta, (delta - 0.01, delta + 0.01), 0.0)
        return changed(report, MEASURED, fresh=[ColdStart({}, 1.0, peak, None, None)], fid=fid)

    lines = other_changes(with_peak(old, 10**8), with_peak(new, 2 * 10**8))
    assert all(line.startswith(f"{MEASURED}: ") for line in lines)
    figures = [re.findall(r"-?\d+\.\d+|\d+|\binf\b", line.removeprefix(MEASURED)) for line in lines]
    sizes = [f"{size / 1e6:.1f}" for size in (subject.disk_bytes, 2 * subject.disk_bytes)]
    assert figures == [
        ["100.0", "200.0"], sizes, ["0", "2"], ["inf", "51.0"], ["0.090", "0.110", "0.190", "0.210"],
    ]  # fmt: skip


def test_what_differs(document):
    old = Report.of(document)
    document["config"]["rounds"] = 7
    document["machine"]["versions"]["torch"] = "9"
    lines = differences(old, Report.of(document))
    assert [line.split(":")[0] for line in lines] == ["machine versions torch", "config rounds"]
