"""Latency in a process of its own."""

import os
import time

import pytest
from galip_bench import latency_worker
from galip_bench.latency_worker import LatencyTask, run_worker
from galip_runtime.errors import ProviderUnavailable


@pytest.fixture
def task(tiny_checkpoint, tiny_bundle):
    def make(*subjects, **changes):
        options = {"batch": (1, 2), "threads": 1, "rounds": 3, "min_rounds": 3, "warmup": 2, "seed": 0}
        options |= {"max_seconds": 60.0, **changes}
        return LatencyTask(str(tiny_checkpoint), str(tiny_bundle), "", subjects, **options)

    return make


def test_a_worker(task):
    calls = []
    result = run_worker(task("eager-fp32", "bundle-cpu-fp32"), lambda *done: calls.append(done))
    assert calls == [(number, 5) for number in range(6)]
    assert set(result.samples) == {"eager-fp32", "bundle-cpu-fp32"}
    for batches in result.samples.values():
        assert set(batches) == {"1", "2"}
        assert all(len(values) == 3 and min(values) > 0 for values in batches["2"].values())
    assert result.failed == {}
    assert result.others is None or 0 <= result.others <= 1


def test_a_failure_names_its_reason(task):
    with pytest.raises(ProviderUnavailable, match="bundle-cpu-fp64"):
        run_worker(task("bundle-cpu-fp64"))


def test_what_libraries_print_is_no_answer(task, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\nos.write(1, b'')\n"
        "import galip_runtime.noise as n\nplain = n.noise\n"
        "def noise(*a, **k):\n    print('{}')\n    os.write(1, b'[1]')\n    return plain(*a, **k)\n"
        "n.noise = noise\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    result = run_worker(task("bundle-cpu-fp32"))
    assert len(result.samples["bundle-cpu-fp32"]["1"]["total"]) == 3


@pytest.fixture
def hang(tmp_path, monkeypatch):
    """`hang(number)`: in new processes, that call of `noise` takes an hour."""

    def plant(number):
        (tmp_path / "sitecustomize.py").write_text(
            "import time\nimport galip_runtime.noise as n\nplain, calls = n.noise, []\n"
            "def noise(*a, **k):\n    calls.append(1)\n"
            f"    time.sleep(3600 * (len(calls) == {number}))\n    return plain(*a, **k)\n"
            "n.noise = noise\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(latency_worker, "PATIENCE", 0.0)

    return plant


def test_a_worker_that_hangs_is_cut_at_its_end_and_its_rounds_stay(task, hang):
    hang(6)  # two batch sizes a round: in the third one
    end = time.time() + 15
    result = run_worker(task("bundle-cpu-fp32", rounds=100, min_rounds=1, warmup=0, end=end))
    assert time.time() - end < 15
    assert result.cut
    for seconds in result.samples["bundle-cpu-fp32"].values():
        assert len(seconds["total"]) == 2
    assert result.failed == {}


def test_a_worker_that_owes_no_round_is_cut_without_one(task, hang):
    hang(1)
    result = run_worker(task("bundle-cpu-fp32", min_rounds=0, warmup=0, end=time.time() + 1))
    assert (result.cut, result.samples) == (True, {})


def test_a_worker_that_owes_a_round_is_cut_after_it(task):
    result = run_worker(task("bundle-cpu-fp32", rounds=10**6, min_rounds=1, warmup=0, end=time.time()))
    assert len(result.samples["bundle-cpu-fp32"]["2"]["total"]) == 1
