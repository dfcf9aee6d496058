"""Latency in a process of its own."""

import pytest
from galip_bench.launch import Task, launch
from galip_runtime.errors import ProviderUnavailable


@pytest.fixture
def task(tiny_checkpoint, tiny_bundle):
    def make(*subjects, **changes):
        options = {"batch": (1, 2), "threads": 1, "rounds": 3, "least_rounds": 3, "warmup": 2, "seed": 0}
        options |= {"max_seconds": 60.0, **changes}
        return Task(str(tiny_checkpoint), str(tiny_bundle), "", subjects, **options)

    return make


def test_a_launch(task):
    told = []
    found = launch(task("eager-fp32", "bundle-cpu-fp32"), lambda *done: told.append(done))
    assert told == [(number, 5) for number in range(6)]
    assert set(found.samples) == {"eager-fp32", "bundle-cpu-fp32"}
    for batches in found.samples.values():
        assert set(batches) == {"1", "2"}
        assert all(len(values) == 3 and min(values) > 0 for values in batches["2"].values())
    assert found.failed == {}
    assert found.others is None or 0 <= found.others <= 1


def test_one_that_fails_says_why(task):
    with pytest.raises(ProviderUnavailable, match=r"failed and said: .*no subject bundle-cpu-fp64"):
        launch(task("bundle-cpu-fp64"))


def test_what_libraries_print_is_no_answer(task, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\nos.write(1, b'')\n"
        "import galip_runtime.noise as n\nplain = n.noise\n"
        "def noise(*a, **k):\n    print('{}')\n    os.write(1, b'[1]')\n    return plain(*a, **k)\n"
        "n.noise = noise\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(launch(task("bundle-cpu-fp32")).samples["bundle-cpu-fp32"]["1"]["total"]) == 3
