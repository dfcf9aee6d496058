"""The studies of `galip serve`: what they count, and what their tables say."""

import subprocess
import sys

import pytest
from error_checks import expect_error
from galip_runtime.errors import GalipError, QualityGateFailed, UsageError
from studies.serving import endurance, servers, throughput
from studies.serving.servers import Load, Server
from studies.serving.watching import percentiles


def one_load(rate, seconds=2.0, **changes):
    answers = {"200": round(rate * seconds)}
    return Load(
        **{"seconds": seconds, "statuses": answers, "failed": 0, "median_ms": 10.0, "p99_ms": 20.0} | changes
    )


def test_pictures_per_second_counts_pictures_alone():
    assert one_load(0, statuses={"200": 30, "429": 900}).pictures_per_second == 15
    assert one_load(0, statuses={"429": 900}).pictures_per_second == 0


@pytest.mark.parametrize("changes", [{"failed": 1}, {"statuses": {"200": 5, "429": 1}}, {"statuses": {}}])
def test_a_case_without_a_picture_each_is_no_result(changes):
    with expect_error(QualityGateFailed, "not every request got a picture"):
        throughput._check("galip serve", one_load(5, **changes))


def test_a_load_needs_wrk(monkeypatch):
    monkeypatch.setattr(servers.shutil, "which", lambda name: None)
    with expect_error(UsageError, "wrk is not installed"):
        servers.load("http://127.0.0.1:1", 1, 1, 1)


def test_a_service_that_ends_is_not_ready():
    server = Server([sys.executable, "-c", "raise SystemExit(4)"], 1)
    with pytest.raises(GalipError, match="was not ready"), server:
        pass


def test_children_are_found_with_theirs():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        while not servers.children(parent.pid):
            assert parent.poll() is None
        assert len(servers.children(parent.pid)) == 1
    finally:
        parent.communicate(b"\n")


def test_percentiles():
    assert percentiles([]) == {"count": 0}
    assert percentiles([3.0, 1.0, 2.0]) == {"count": 3, "median": 2.0, "p99": 3.0, "most": 3.0}


def test_the_table_of_the_throughput_has_a_row_for_each_case():
    rates = dict(zip(throughput.CASES, (10, 11, 20, 9, 15), strict=True))
    result = {
        "bundle": {"image_height": 128},
        "cases": {name: [vars(one_load(rate)) for _ in range(3)] for name, rate in rates.items()},
    }
    text = throughput.table([result])
    assert f"| {throughput.BASE} | 128 | 10 | 1 | 10 | 20 |" in text
    assert "| galip serve, 16 callers | 128 | 20 | 2.00 (2.00 to 2.00) | 10 | 20 |" in text


def test_the_table_of_the_endurance_says_what_happened():
    memory = {"memory_early": 300 * 2**20, "memory_late": 301 * 2**20}
    result = {
        "config": {"overload": 120.0},
        "overload": {
            "callers": 400,
            "requests_per_second": 1000.0, "capacity": 100.0, "statuses": {"200": 12000, "429": 108000},
            "failed": 0, "accepted_seconds": {"count": 9, "median": 0.5, "p99": 0.9, "most": 1.25}, **memory,
        },
        "fuzz": {"seconds": 600.0, "statuses": {"200": 7000, "400": 1234}, "server_errors": 0, **memory},
        "killed_worker": {"answers": {"200": 500, "lost": 3}, "workers_afterwards": 2},
        "stopped_under_load": {"answers": {"200": 300, "refused": 40}, "exit_code": 0},
    }  # fmt: skip
    text = endurance.table([result])
    assert (
        "| 400 callers at once for 120 s, 10 times the requests that it can answer | "
        "12,000 × 200, 108,000 × 429; 0 without" in text
    )
    assert (
        "accepted ones took 0.50 s (median), 1.25 s at most; memory 300 MiB early, 301 MiB late (medians)"
        in text
    )
    assert "| schemathesis, 10 minutes | 8,234 requests, 0 answered with 5xx" in text
    assert "500 × 200, 3 × lost; 2 workers afterwards" in text
    assert "300 × 200, 40 × refused; exit code 0" in text
