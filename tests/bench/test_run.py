"""What a run measures and says, and that planted faults are found."""

import dataclasses
import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from galip_bench import BenchConfig, benchmark, latency, run, subjects
from galip_bench.html_report import html_report
from galip_bench.latency import PHASES, copy_timer, measure_latency, time_phases
from galip_bench.latency_report import machine_noise
from galip_bench.latency_worker import WorkerResult
from galip_bench.machine import Gpu
from galip_bench.markdown_report import latency_summary, markdown_report
from galip_bench.models import prepare_models
from galip_bench.notes import notes as notes_of
from galip_bench.tables import tables
from galip_export import export_bundle
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed, UsageError

from galip.assets import default_bundle, default_checkpoint
from galip.checkpoint import save_galip
from galip.eager import load_eager
from galip.model import Galip
from galip.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = "bundle-cpu-fp32"


def test_what_a_report_holds(report):
    assert list(report.subjects) == ["eager-fp32", MEASURED]
    for subject in report.subjects.values():
        kernels = subject.info.get("kernels")
        missing = {"copy", "uint8"} if kernels and kernels["target"] else {"copy"}  # galip-kernels round, too
        for batch in ("1", "3"):
            latency = subject.latency[batch]
            samples = latency.samples
            assert set(samples) == {*PHASES, "total"} - missing
            assert all(len(seconds) == 6 for seconds in samples.values())
            for parts in zip(*samples.values(), strict=True):
                assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=1e-7)
            assert latency.seconds["total"].p50 == pytest.approx(np.median(samples["total"]), abs=1e-7)
            assert latency.seconds["total"].p99 is None
        assert subject.disk_bytes > 0
    eager, bundle = report.subjects.values()
    assert dataclasses.astuple(eager.latency["1"].ratio) == (1.0, (1.0, 1.0), (1.0, 1.0))
    assert eager.parity.max_abs == 0
    assert 0 < bundle.parity.max_abs < 1e-3
    assert bundle.parity.not_finite == 0
    assert bundle.parity.ssim_min > 0.999
    assert bundle.parity.feature_distance_max < 0.01
    assert report.machine.versions["onnxruntime"]
    assert report.machine.cpu_features
    assert (report.threads, report.launches) == (1, [3, 3])
    assert report.warnings == []


def test_no_path_of_this_machine_is_in_it_but_those_given(document, tiny_checkpoint):
    text = json.dumps({**document, "config": {}, "command": ""})
    assert str(tiny_checkpoint.parent) not in text
    assert str(Path.home()) not in text.replace(str(Path.home()) + "-", "")


def test_a_bundle_s_disk_is_what_it_reads(report, tiny_bundle):
    read = ("manifest.json", "text_encoder.onnx", "generator.onnx")
    bare = sum((tiny_bundle / name).stat().st_size for name in read)
    everything = sum(file.stat().st_size for file in tiny_bundle.iterdir())
    assert bare < report.subjects[MEASURED].disk_bytes < everything


def test_tables_for_people(report):
    titles = [title for title, _, _ in tables(report)]
    assert [title.split(",")[0] for title in titles] == [
        "Latency from prompt to PNG", "Latency from prompt to PNG", "Where the time goes",
        "Parity with eager-fp32",
    ]  # fmt: skip
    text = markdown_report(report)
    assert f"| {MEASURED} |" in text
    assert f"bundle-cuda-fp32: {report.unavailable['bundle-cuda-fp32']}" in text
    assert "equal" in text  # eager with itself


def test_what_is_not_named_is_exported_for_the_run(config, monkeypatch):
    folders = []
    from galip_export import export_bundle

    def export(checkpoint, out, **options):
        folders.append(out)
        return export_bundle(checkpoint, out, **options)

    monkeypatch.setattr("galip_export.export_bundle", export)
    report = run(dataclasses.replace(config(rounds=1, pictures=1), bundle=""))
    assert report.subjects[MEASURED].parity.max_abs < 1e-3
    assert len(folders) == 1
    assert not folders[0].exists()


def test_rounds_take_turns(tiny_checkpoint):
    order = []

    class Recorded:
        def __init__(self, name, model):
            self.name, self.model = name, model

        def __getattr__(self, attribute):
            return getattr(self.model, attribute)

        def decode(self, noise, sentence):
            order.append((self.name, noise[0, 0]))
            return self.model.decode(noise, sentence)

    model = load_eager(tiny_checkpoint, "cpu")
    models = {name: Recorded(name, model) for name in "AB"}
    samples, failed = measure_latency(models, ["a", "b"], batches=(1,), rounds=3, warmup=1)
    assert failed == {}
    assert [name for name, _ in order] == list("ABABABAB")
    noises = [noise for _, noise in order]
    assert noises[::2] == noises[1::2]  # the same for all
    assert len(set(noises)) == 4  # others every round
    assert len(samples["A"][1]["total"]) == 3


def test_rounds_end_when_time_is_up_but_not_before_there_are_enough(tiny_checkpoint):
    models = {"A": load_eager(tiny_checkpoint, "cpu")}
    samples, _ = measure_latency(
        models, ["a"], batches=(1,), rounds=50, warmup=0, min_rounds=4, max_seconds=0
    )
    assert len(samples["A"][1]["total"]) == 4


def test_copies_are_a_phase_of_their_own_where_there_are_some(tiny_checkpoint, monkeypatch):
    """As on a GPU: what was computed before is waited for, and isn't copying."""
    model = load_eager(tiny_checkpoint, "cpu")
    assert copy_timer(model) is None
    now = 0.0  # a clock that only copies and waits move

    def take(seconds, result=None):
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    model.synchronise = lambda: take(1)
    to_host = model.to_host
    model.to_host = lambda result: take(3, to_host(result))
    monkeypatch.setattr(type(model), "copies", property(lambda self: True))
    copies = copy_timer(model)
    phases = time_phases(model, ["a"], [0], copies)
    assert set(phases) == {*PHASES, "total"}
    assert phases["copy"] == 5  # to_host, and the wait after each of the two copies
    assert phases["generator"] == 2  # the waits before them
    assert phases["text"] == 7  # with its own two copies and four waits
    assert phases["total"] == now


def test_a_device_that_rounds_has_no_phase_for_it(tiny_checkpoint):
    model = load_eager(tiny_checkpoint, "cpu")
    calls = []
    kind = type("Rounding", (type(model),), {"rounds_on_device": True})
    model.__class__ = kind
    kind.decode_pictures = lambda self, *rows: calls.append(1) or super(kind, self).decode_pictures(*rows)
    phases = time_phases(model, ["a"], [0])
    assert set(phases) == {*PHASES, "total"} - {"copy", "uint8"}
    assert calls == [1]


def test_on_a_gpu_the_time_without_png_is_a_table(report):
    titles = [title for title, _, _ in tables(report)]
    gpu = Gpu("a GPU", "9.0", 1, "1", "13", 9)
    on_gpu = dataclasses.replace(report, machine=dataclasses.replace(report.machine, gpu=gpu))
    gpu_tables = {title: (columns, rows) for title, columns, rows in tables(on_gpu)}
    (title,) = gpu_tables.keys() - set(titles)
    columns, (_, own) = gpu_tables[title]
    samples = report.subjects[MEASURED].latency["3"].samples
    middle = np.median(np.subtract(samples["total"], samples["png"]))
    assert columns[-3:] == ["3 pictures at once, ms", f"× {report.reference}", "pictures/s"]
    assert own[0] == MEASURED
    assert own[-1] == f"{3 / middle:,.0f}"


# Planted faults


def test_a_bundle_of_another_checkpoint_is_a_warning(config, tmp_path):
    other = tmp_path / "other.safetensors"
    save_galip(other, Galip(preset("tiny")))
    report = run(dataclasses.replace(config(rounds=1), model=str(other)))
    assert len(report.warnings) == 1
    assert report.subjects[MEASURED].parity.max_abs > 1e-2


@pytest.fixture
def plant(config, with_subject, no_workers):
    """`plant(change)`: a subject `planted`, an eager model whose last weight `change` has changed."""

    def planting(change):
        def load():
            model = load_eager(Path(config().model), "cpu")
            change(model.model.generator.to_rgb.weight.data)
            return model

        with_subject("planted", load, keep=1)

    return planting


def test_a_wrong_weight_shows(config, plant, tmp_path):
    plant(lambda weight: weight[0, 0].add_(0.1))
    report = run(config(subjects=("planted",), rounds=1), pictures=tmp_path)
    assert report.subjects["planted"].parity.max_abs > 1e-3
    assert (tmp_path / "planted.png").stat().st_size > 100


def test_nan_is_counted_and_not_timed(config, plant):
    plant(lambda weight: weight.fill_(float("nan")))
    report = run(config(subjects=("planted",), rounds=1))
    planted = report.subjects["planted"]
    assert planted.parity.not_finite == 5
    assert planted.latency == {}
    (warning,) = report.warnings
    assert warning.startswith("planted: 5 of 5 ")
    assert "| planted | – |" in markdown_report(report)
    assert "planted" in html_report(report)
    uncounted = run(config(subjects=("planted",), rounds=1, pictures=0))
    assert uncounted.subjects["planted"].parity.not_finite == 4  # one of each batch at least


def test_a_fallback_to_another_device_is_an_error(config, with_subject, no_workers):
    def fall_back():
        raise ProviderUnavailable("only CPUExecutionProvider started")

    with_subject("bundle-cuda-fp32", fall_back, keep=1)
    with pytest.raises(ProviderUnavailable, match="CPUExecutionProvider"):
        run(config(subjects=("bundle-cuda-fp32",)))
    report = run(config(subjects=(), rounds=1))
    assert list(report.subjects) == ["eager-fp32"]
    assert "CPUExecutionProvider" in report.unavailable["bundle-cuda-fp32"]


def test_a_slow_neighbour_makes_it_noisy():
    def result(times, others):
        return WorkerResult({"eager-fp32": {"1": {"total": times}}}, {}, others)

    calm = [result([level] * 10, 0.0) for level in (1.0, 1.3)]  # processes may differ
    assert machine_noise(calm).noisy is False
    varied = machine_noise([result([1.0, 1.0, 1.5, 1.5] * 5, None)])
    assert (varied.noisy, varied.others) == (True, None)
    assert "40%" in varied.reasons[0]
    busy = machine_noise([*calm, result([1.0], 0.3)])
    assert (busy.noisy, busy.others) == (True, 0.3)
    assert "30%" in busy.reasons[0]


def test_a_model_that_fails_does_not_stop_the_others(tiny_checkpoint):
    model, other = (load_eager(tiny_checkpoint, "cpu") for _ in range(2))
    calls = []

    def fails(noise, sentence):
        calls.append(len(noise))
        if len(calls) == 4:
            raise MemoryError("no more of it")
        return decode(noise, sentence)

    decode, other.decode = other.decode, fails
    samples, failed = measure_latency({"A": model, "B": other}, ["a"], batches=(1, 2), rounds=4, warmup=0)
    assert failed == {"B": "MemoryError at batch 2: no more of it"}
    assert len(calls) == 4
    assert list(samples) == ["A"]
    assert len(samples["A"][2]["total"]) == 4


def test_a_subject_that_fails_has_no_latency(config, monkeypatch):
    def failing(task, progress=None, stop=None):
        seconds = {"generator": [1.0] * task.rounds, "total": [1.0] * task.rounds}
        samples = {"eager-fp32": {str(size): seconds for size in task.batch}}
        return WorkerResult(samples, {MEASURED: "MemoryError at batch 2: no more"}, None)

    monkeypatch.setattr(benchmark, "run_worker", failing)
    report = run(config())
    assert report.subjects[MEASURED].latency == {}
    (warning,) = report.warnings
    assert warning.startswith(f"{MEASURED} ")
    assert "MemoryError at batch 2: no more" in warning

    monkeypatch.setattr(benchmark, "run_worker", lambda *_: WorkerResult({}, {"eager-fp32": "gone"}, None))
    with pytest.raises(QualityGateFailed, match="gone"):
        run(config())


def test_what_does_not_start_is_listed_unless_it_was_named(config, with_subject, no_workers):
    def load():
        raise RuntimeError("the compiler is broken")

    with_subject("odd", load, keep=1)
    report = run(config(subjects=()))
    assert report.unavailable["odd"] == "RuntimeError: the compiler is broken"
    with pytest.raises(RuntimeError, match="compiler is broken"):
        run(config(subjects=("odd",)))


def test_subjects_say_what_they_are(tiny_models):
    half = subjects.load("eager-bf16", tiny_models)
    assert half.info()["precision"] == "autocast to bfloat16"
    assert subjects.load("compiled-fp32", tiny_models).info()["compiled"] is True


def test_the_released_order_gives_the_same_pictures(tiny_models):
    eager, released = (subjects.load(name, tiny_models) for name in ("eager-fp32", "released-fp32"))
    assert released.info()["order"] == "released"
    lengths, forward = [], released.model.text.forward
    released.model.text.forward = lambda tokens: lengths.append(tokens.shape[1]) or forward(tokens)
    sentence = released.encode_text(["a", "b"])
    assert lengths == [released.dimensions.context_length]
    np.testing.assert_allclose(sentence, eager.encode_text(["a", "b"]), atol=1e-5)
    noise = eager.noise([1, 2])
    image = eager.decode(noise, sentence)
    assert np.abs(released.decode(noise, sentence) - image).max() < 1e-4 * image.std()


def test_what_is_measured_on_request_only(tiny_models):
    known = subjects.all_subjects(tiny_models)
    default = {subject.name for subject in subjects.select(known, [])}
    assert "released-fp32" not in default
    assert "bundle-openvino-fp32" in default
    assert "released-fp32" in {subject.name for subject in subjects.select(known, ["released-fp32"])}


def test_a_bundle_without_the_kernels_beside_it(config, tiny_models):
    if not importlib.util.find_spec("galip_kernels"):
        missing = {each.name: each.unavailable for each in subjects.all_subjects(tiny_models)}
        assert "not installed" in missing["nokernels-cpu-fp32"]
        pytest.skip("galip-kernels is NOT TESTED here: it is not installed")
    report = run(config(subjects=(MEASURED, "nokernels-cpu-fp32"), cold_starts=1))
    used, unused = (report.subjects[name] for name in (MEASURED, "nokernels-cpu-fp32"))
    assert used.info["kernels"]["target"]
    assert unused.info["kernels"]["why"] == "GALIP_KERNELS=0 switches galip-kernels off"
    assert (used.parity.psnr_min or np.inf) > 60
    assert "GALIP_KERNELS" not in os.environ
    lines = notes_of(report)
    assert any(
        line.startswith(f"{MEASURED} computes its generation blocks with galip-kernels") for line in lines
    )
    assert not any(line.startswith("nokernels-cpu-fp32 computes") for line in lines)


@pytest.mark.long
def test_a_bundle_without_rewrites_beside_it(config, tiny_checkpoint, tmp_path):
    plain = tmp_path / "plain"
    export_bundle(tiny_checkpoint, plain, rewrites="none")
    names = ("plain-cpu-fp32", "plain-openvino-fp32", "released-fp32", MEASURED)
    report = run(config(plain_bundle=str(plain), subjects=names, cold_starts=1))
    assert set(report.subjects) == {"eager-fp32", *names}
    for name in names[:2]:
        assert (report.subjects[name].parity.psnr_min or np.inf) > 60
        assert report.subjects[name].fresh[0].seconds["total"] > 0
    assert report.subjects["plain-cpu-fp32"].disk_bytes != report.subjects[MEASURED].disk_bytes
    table = latency_summary(report)
    (row,) = [line for line in table.splitlines() if line.startswith("| released-fp32 |")]
    assert row.count("(1.00×)") == 2  # ratios are to it
    other = tmp_path / "other"
    checkpoint = tmp_path / "other.safetensors"
    save_galip(checkpoint, Galip(preset("tiny")))
    export_bundle(checkpoint, other)
    with pytest.raises(UsageError, match=re.escape(str(other))):
        run(config(plain_bundle=str(other)))
    with pytest.raises(UsageError, match=re.escape(config().bundle)):
        run(config(plain_bundle=config().bundle))


def test_the_load_of_others(monkeypatch):
    from galip_bench import machine

    times = iter([(100.0, 50.0, 20.0), (120.0, 66.0, 30.0)])  # of 20 s 16 were busy, 10 by us
    monkeypatch.setattr(machine, "_cpu_times", lambda: next(times))
    assert machine.OtherLoad().share() == pytest.approx(0.3)
    monkeypatch.setattr(machine, "_cpu_times", lambda: None)
    assert machine.OtherLoad().share() is None
    monkeypatch.undo()
    start = machine._cpu_times()
    sum(range(10**7))
    end = machine._cpu_times()
    assert end[2] > start[2]
    assert end[0] - start[0] >= end[1] - start[1] >= 0


# Mistakes


@pytest.mark.parametrize(
    ("option", "value", "changes"),
    [
        ("rounds", "0", {"rounds": 0}),
        ("rounds", "3", {"rounds": 3, "launches": 4}),
        ("max_minutes", "nan", {"max_minutes": float("nan")}),
        ("max_minutes", "inf", {"max_minutes": float("inf")}),
        ("split", "x.npz", {"fid": 20, "against": "x.npz", "split": "test"}),
        ("threads", "0", {"threads": 0}),
        ("batch", "()", {"batch": ()}),
        ("batch", "(0,)", {"batch": (0,)}),
        ("batch", "(2, 2)", {"batch": (2, 2)}),
        ("fid", "3", {"fid": 3}),
        ("against", "fid", {"against": "x"}),
    ],
)
def test_a_wrong_option(config, option, value, changes):
    with pytest.raises(UsageError) as error:
        config(**changes)
    assert option in str(error.value)
    assert value in str(error.value)


@pytest.mark.parametrize(
    ("changes", "kind", "value"),
    [
        ({"subjects": ("onnx",)}, UsageError, "onnx"),
        ({"subjects": ("bundle-cuda-fp32",)}, ProviderUnavailable, "bundle-cuda-fp32"),
        ({"model": "/nowhere"}, UsageError, "/nowhere"),
        ({"model": ""}, UsageError, "--model"),
    ],
)
def test_what_can_not_be_measured(config, changes, kind, value):
    with pytest.raises(kind, match=rf"{value}\b"):
        run(dataclasses.replace(config(), **changes))


def test_a_reference_with_nan_is_refused(config, monkeypatch):
    broken = np.full((1, 3, 4, 4), np.nan, np.float32)
    monkeypatch.setattr("galip_bench.parity.generate_raw", lambda *_: broken)
    with pytest.raises(QualityGateFailed, match="eager-fp32"):
        run(config(rounds=1))


def test_without_a_bundle_it_is_the_shipped_one():
    with prepare_models(BenchConfig()) as models:
        assert (models.checkpoint, models.bundle) == (default_checkpoint(), default_bundle())
        assert models.is_pair
        default = {subject.name for subject in subjects.select(subjects.all_subjects(models), [])}
        assert {"eager-fp32", "bundle-cpu-w16a32"} <= default
        with pytest.raises(UsageError, match=r"bundle-cpu-fp32.*galip export.*--bundle"):
            subjects.select(subjects.all_subjects(models), ["bundle-cpu-fp32"])
