"""How long a run may take, how long it says it will, and what is left of it when it is stopped."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from galip_bench import benchmark, read_report, run
from galip_bench.latency import measure_latency
from galip_bench.latency_worker import LatencyTask, run_worker
from galip_bench.schedule import Schedule, Stop, Terminated, TimeIsUp, time_limit
from galip_runtime.errors import ProviderUnavailable

from galip.eager import load_eager

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = "bundle-cpu-fp32"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_schedule():
    clock = Clock()
    schedule = Schedule(2, clock)
    assert (schedule.left(), schedule.expected()) == (120, None)
    assert "2 min" in str(schedule)
    schedule.expect(pictures=10, rounds=30)
    clock.now += 4
    assert schedule.expected() == 36
    schedule.expect(pictures=0)
    assert schedule.expected() == 30
    schedule.expect(rounds=500)
    assert schedule.expected() == schedule.left() == 116  # the limit holds
    with schedule.not_counted():
        clock.now += 1000
    assert schedule.left() == 116
    clock.now += 200
    assert schedule.left() == -84
    assert schedule.expected() == 0


def test_no_time_leaves_the_reference_and_a_bundle(config, no_workers):
    """What there is no time for is named; nothing of it is made up."""
    report = run(config(subjects=(), rounds=4, launches=2, cold_starts=2, max_minutes=0))
    assert list(report.subjects) == ["eager-fp32", MEASURED]
    assert "--max-minutes" in report.unavailable["eager-bf16"]
    assert report.launches == [2]
    assert all(subject.fresh == [] for subject in report.subjects.values())
    assert any("launches" in warning and "--max-minutes" in warning for warning in report.warnings)


def test_the_whole_ends_in_time(config):
    """Rounds that would take days; loading, warm-up and cold starts count."""
    start = time.monotonic()
    report = run(config(rounds=1_000_000, warmup=100_000, launches=3, cold_starts=1, max_minutes=0.25))
    seconds = time.monotonic() - start
    assert seconds < 60  # not 15: a loaded machine takes long to start a process
    assert sum(report.launches) < 1_000_000
    assert report.subjects[MEASURED].latency


def test_rounds_end_when_they_are_over_with_one_at_least(tiny_checkpoint):
    models = {"A": load_eager(tiny_checkpoint, "cpu")}
    samples, _ = measure_latency(models, ["a"], batches=(1,), rounds=50, warmup=50, is_over=lambda: True)
    assert len(samples["A"][1]["total"]) == 1
    calls = []
    measure_latency(
        models, ["a"], batches=(1,), rounds=50, warmup=2, is_over=lambda: len(calls) > 4,
        progress=calls.append,
    )  # fmt: skip
    assert len(calls) == 5


def test_what_is_measured_of_a_round_that_is_over_is_dropped(tiny_checkpoint):
    models = {name: load_eager(tiny_checkpoint, "cpu") for name in "AB"}
    decoded, decode = [], models["A"].decode

    def counted(noise, sentence):
        decoded.append(len(noise))
        return decode(noise, sentence)

    models["A"].decode = counted
    delivered = []
    samples, _ = measure_latency(
        models, ["a"], batches=(1, 2), rounds=50, warmup=0, is_over=lambda: len(decoded) == 5,
        on_round=lambda seconds, failed: delivered.append(set(seconds)),
    )  # fmt: skip
    assert decoded == [1, 2, 1, 2, 1]
    assert {len(sizes[batch]["total"]) for sizes in samples.values() for batch in (1, 2)} == {2}
    assert delivered == [{"A", "B"}] * 2


def test_a_step_that_takes_too_long_is_cut():
    start = time.monotonic()
    with pytest.raises(TimeIsUp), time_limit(0.1), contextlib.suppress(Exception):  # as a library would
        time.sleep(60)
    assert time.monotonic() - start < 30
    with time_limit(0.1):
        pass
    with time_limit(math.inf):
        time.sleep(0.3)  # no timer is left behind


def test_a_subject_whose_pictures_take_too_long_is_cut(config, no_workers, with_subject):
    """The others are measured, and the report says what was cut."""
    with_subject("endless", lambda: time.sleep(3600))
    report = run(config(subjects=("endless", MEASURED), rounds=2, max_minutes=0.2))
    assert list(report.subjects) == ["eager-fp32", MEASURED]
    assert report.unavailable["endless"].startswith("cut after ")
    assert report.subjects[MEASURED].latency


def test_a_launch_that_was_cut_is_named_and_one_without_a_round_left_out(config, no_workers, monkeypatch):
    made_up, tasks = benchmark.run_worker, []

    def cut(task, progress=None, stop=None):
        tasks.append(task)
        result = made_up(task)
        return dataclasses.replace(result, cut=True, samples=result.samples if len(tasks) < 3 else {})

    monkeypatch.setattr(benchmark, "run_worker", cut)
    report = run(config(launches=3, rounds=6))
    assert report.launches == [2, 2]
    assert [task.min_rounds for task in tasks] == [1, 0, 0]
    assert [warning.split(" cut")[0] for warning in report.warnings] == [
        f"launch {n} of 3 was" for n in (1, 2, 3)
    ]


def test_a_cold_start_that_takes_too_long_is_cut(config, no_workers, monkeypatch):
    monkeypatch.setattr(benchmark, "_START_SECONDS", 0.0)
    plain, limits = benchmark.measure_cold_start, []

    def slow(name, models, *, max_seconds, **options):
        limits.append(max_seconds)
        return plain(name, models, max_seconds=0.01, **options)

    monkeypatch.setattr(benchmark, "measure_cold_start", slow)
    report = run(config(cold_starts=2, max_minutes=5))
    assert all(0 < seconds <= 300 for seconds in limits)
    assert all(subject.fresh == [] for subject in report.subjects.values())
    assert [warning.split(":")[0] for warning in report.warnings] == [
        f"0 cold starts of {name}, not 2" for name in ("eager-fp32", MEASURED)
    ]


def test_the_progress_tells_the_time_left(config, no_workers):
    schedule, told = Schedule(10), []
    run(config(), progress=lambda *_: told.append(schedule.expected()), schedule=schedule)
    assert told[0] is None
    assert all(seconds is not None and 0 <= seconds < 600 for seconds in told[1:])


@pytest.fixture
def task(tiny_checkpoint, tiny_bundle):
    return LatencyTask(
        str(tiny_checkpoint), str(tiny_bundle), "", (MEASURED,), batch=(1,), threads=1, rounds=10**6,
        min_rounds=10**6, warmup=0, max_seconds=0.0, seed=0,
    )  # fmt: skip


def test_a_stopped_worker_hands_over_what_it_measured(task):
    with Stop() as stop:
        result = run_worker(
            task, lambda done, total: done == 3 and os.kill(os.getpid(), signal.SIGTERM), stop
        )
    assert stop.requested
    assert 3 <= len(result.samples[MEASURED]["1"]["total"]) < 10**6
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_stop_raises_only_where_nothing_is_lost():
    with Stop() as stop:
        with pytest.raises(Terminated), stop.raises():
            signal.raise_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # raises nothing here
        with pytest.raises(Terminated), stop.raises():
            pass


def test_a_run_that_is_stopped_in_its_second_launch_reports_the_first(config, no_workers, monkeypatch):
    made_up, calls = benchmark.run_worker, []

    def stopping(task, progress=None, stop=None):
        calls.append(task)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise ProviderUnavailable("it was killed while it loaded")
        return made_up(task)

    monkeypatch.setattr(benchmark, "run_worker", stopping)
    with Stop() as stop:
        report = run(config(launches=3, rounds=6, cold_starts=2), stop=stop)
    assert report.launches == [2]
    assert report.subjects[MEASURED].fresh == []
    assert any("SIGTERM" in warning for warning in report.warnings)
    calls[:] = calls[:1]  # and in its first one there is nothing to report
    with pytest.raises(Terminated), Stop() as stop:
        run(config(launches=3, rounds=6), stop=stop)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="children are found in /proc")
def test_sigterm_writes_a_partial_report_and_ends_the_children(
    tiny_checkpoint, tiny_bundle, small_inception, tmp_path
):
    file, page = tmp_path / "x.json", tmp_path / "x.html"
    options = ["--model", tiny_checkpoint, "--bundle", tiny_bundle, "--subjects", MEASURED, "--batch", "1"]
    options += ["--inception", small_inception, "--threads", 1, "--launches", 1, "--rounds", 1_000_000]
    options += ["--pictures", 3, "--json", file, "--html", page]
    process = subprocess.Popen(
        [sys.executable, "-m", "galip", "bench", *map(str, options)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("measuring"):
            break
    children = [
        int(number)
        for folder in os.listdir(f"/proc/{process.pid}/task")
        for number in Path(f"/proc/{process.pid}/task/{folder}/children").read_text().split()
    ]
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert children
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]
    report = read_report(file)
    assert sum(report.launches) > 0
    assert any("SIGTERM" in warning for warning in report.warnings)
    assert "SIGTERM" in page.read_text()


def test_quick_leaves_what_was_given(monkeypatch):
    from galip.cli import main

    configs = []

    def record(config, **options):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run", record)
    for options in ([], ["--quick"], ["--quick", "--pictures", "7", "--batch", "1,2"]):
        with pytest.raises(SystemExit):
            main(["bench", *options])
    default, quick, mixed = configs
    assert default == type(default)()
    assert (quick.max_minutes, quick.batch) == (2, (1,))
    assert mixed == dataclasses.replace(quick, pictures=7, batch=(1, 2))
    assert json.dumps(dataclasses.asdict(quick))
