"""`galip bench` on a tiny model."""

import copy
import dataclasses

import pytest
from galip_bench import BenchConfig, benchmark, run
from galip_bench.latency_worker import WorkerResult
from galip_bench.models import Models

MEASURED = "bundle-cpu-fp32"


@pytest.fixture(autouse=True, scope="session")
def trace_once(traced_graphs):
    """Exports take the graphs of a model that was traced before."""


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint, tmp_path_factory):
    from galip_export import export_bundle

    bundle = tmp_path_factory.mktemp("bench") / "bundle"
    export_bundle(tiny_checkpoint, bundle)
    return bundle


@pytest.fixture(scope="session")
def tiny_models(tiny_checkpoint, tiny_bundle):
    return Models(tiny_checkpoint, tiny_bundle)


@pytest.fixture(scope="session")
def config(tiny_checkpoint, tiny_bundle, small_inception):
    def make(**changes):
        options = {"subjects": (MEASURED,), "batch": (1, 3), "rounds": 6, "warmup": 1, "cold_starts": 0}
        options |= {"launches": 1}
        options |= {"pictures": 5, "threads": 1, "inception": str(small_inception), **changes}
        return BenchConfig(model=str(tiny_checkpoint), bundle=str(tiny_bundle), **options)

    return make


@pytest.fixture(scope="session")
def report(config):
    """The report of a run. Tests share it: change copies only."""
    return run(config(launches=2))


@pytest.fixture
def document(report):
    """The report as its JSON document, for a test to change."""
    return copy.deepcopy(dataclasses.asdict(report))


@pytest.fixture(scope="session")
def slowed():
    """`slowed(report, subject, factor)`: the report, as if the subject took `factor` times as long."""

    def slow_down(report, name, factor):
        slow = copy.deepcopy(report)
        for latency in slow.subjects[name].latency.values():
            latency.samples["total"] = [factor * value for value in latency.samples["total"]]
        return slow

    return slow_down


@pytest.fixture
def with_subject(monkeypatch):
    """`with_subject(name, load, keep=None)`: a further subject; `keep`: how many of the others stay."""

    def add(name, load, keep=None):
        subjects = benchmark.all_subjects
        monkeypatch.setattr(
            benchmark, "all_subjects", lambda *a: [*subjects(*a)[:keep], benchmark.Subject(name, load)]
        )
        monkeypatch.setattr("galip_bench.subjects.check_subjects", lambda config: None)

    return add


@pytest.fixture
def no_workers(monkeypatch):
    """Latency is not measured but made up, for subjects that exist only in this process."""

    def made_up(task, progress=None, stop=None):
        seconds = {"generator": [1.0] * task.rounds, "total": [1.0] * task.rounds}
        samples = {name: {str(size): seconds for size in task.batch} for name in task.subjects}
        return WorkerResult(samples, {}, None)

    monkeypatch.setattr(benchmark, "run_worker", made_up)
