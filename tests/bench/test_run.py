"""What a run measures and says, and that planted faults are found."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from galip_bench import bench, run, subjects
from galip_bench.html import page
from galip_bench.latency import PHASES, measure_latency, phases_of_one, watch_copies
from galip_bench.launch import Launch
from galip_bench.tables import markdown, summary, tables_of
from galip_export import export_bundle
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed, UsageError

from galip.checkpoint import save_galip
from galip.eager import load_eager
from galip.model import Galip
from galip.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = "bundle-cpu-fp32"


def test_what_a_report_holds(report):
    assert list(report["subjects"]) == ["eager-fp32", MEASURED]
    for subject in report["subjects"].values():
        for batch in ("1", "3"):
            latency = subject["latency"][batch]
            samples = latency["samples"]
            assert set(samples) == {*PHASES, "total"} - {"copy"}  # none on a CPU
            assert all(len(each) == 6 for each in samples.values())
            for parts in zip(*samples.values(), strict=True):
                assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=1e-7)
            assert latency["seconds"]["total"]["p50"] == pytest.approx(np.median(samples["total"]), abs=1e-7)
            assert latency["seconds"]["total"]["p99"] is None
        assert subject["disk_bytes"] > 0
    eager, bundle = report["subjects"].values()
    assert eager["latency"]["1"]["ratio"] == {
        "median": 1.0,
        "interval_95": (1.0, 1.0),
        "rerun_interval_95": (1.0, 1.0),
    }
    assert eager["parity"]["max_abs"] == 0
    assert 0 < bundle["parity"]["max_abs"] < 1e-3
    assert bundle["parity"]["not_finite"] == 0
    assert bundle["parity"]["ssim_min"] > 0.999
    assert bundle["parity"]["feature_distance_max"] < 0.01
    assert report["machine"]["versions"]["onnxruntime"]
    assert report["machine"]["cpu_features"]
    assert (report["threads"], report["launches"]) == (1, [3, 3])
    assert report["warnings"] == []


def test_no_path_of_this_machine_is_in_it_but_those_given(report, tiny_checkpoint):
    text = json.dumps({**report, "config": {}, "command": ""})
    assert str(tiny_checkpoint.parent) not in text
    assert str(Path.home()) not in text.replace(str(Path.home()) + "-", "")


def test_a_bundle_s_disk_is_what_it_reads(report, tiny_bundle):
    read = ("manifest.json", "text_encoder.onnx", "generator.onnx")
    bare = sum((tiny_bundle / name).stat().st_size for name in read)
    everything = sum(file.stat().st_size for file in tiny_bundle.iterdir())
    assert bare < report["subjects"][MEASURED]["disk_bytes"] < everything


def test_tables_for_people(report):
    titles = [title for title, _, _ in tables_of(report)]
    assert [title.split(",")[0] for title in titles] == [
        "Latency from prompt to PNG", "Latency from prompt to PNG", "Where the time goes",
        "Parity with eager-fp32",
    ]  # fmt: skip
    text = markdown(report)
    assert f"| {MEASURED} |" in text
    assert "not measured: bundle-cuda-fp32: the installed packages were built without it" in text
    assert "equal" in text  # eager with itself


def test_what_is_not_named_is_exported_for_the_run(config, monkeypatch):
    made = []
    from galip_export import export_bundle

    def export(checkpoint, out, **options):
        made.append(out)
        return export_bundle(checkpoint, out, **options)

    monkeypatch.setattr("galip_export.export_bundle", export)
    report = run(dataclasses.replace(config(rounds=1, pictures=1), bundle=""))
    assert report.subjects[MEASURED]["parity"]["max_abs"] < 1e-3
    assert len(made) == 1
    assert not made[0].exists()


def test_rounds_take_turns(tiny_checkpoint):
    order = []

    class Told:
        def __init__(self, name, drawer):
            self.name, self.drawer = name, drawer

        def __getattr__(self, attribute):
            return getattr(self.drawer, attribute)

        def decode(self, noise, sentence):
            order.append((self.name, noise[0, 0]))
            return self.drawer.decode(noise, sentence)

    drawer = load_eager(tiny_checkpoint, "cpu")
    drawers = {name: Told(name, drawer) for name in "AB"}
    samples, failed = measure_latency(drawers, ["a", "b"], batches=(1,), rounds=3, warmup=1)
    assert failed == {}
    assert [name for name, _ in order] == list("ABABABAB")
    noises = [noise for _, noise in order]
    assert noises[::2] == noises[1::2]  # the same for all
    assert len(set(noises)) == 4  # others every round
    assert len(samples["A"][1]["total"]) == 3


def test_rounds_end_when_time_is_up_but_not_before_there_are_enough(tiny_checkpoint):
    drawers = {"A": load_eager(tiny_checkpoint, "cpu")}
    samples, _ = measure_latency(
        drawers, ["a"], batches=(1,), rounds=50, warmup=0, least_rounds=4, max_seconds=0
    )
    assert len(samples["A"][1]["total"]) == 4


def test_copies_are_told_apart_where_there_are_some(tiny_checkpoint):
    """As on a GPU: what was computed before is waited for, and isn't copying."""
    drawer = load_eager(tiny_checkpoint, "cpu")
    assert watch_copies(drawer) is None
    waited = []
    drawer.synchronise = lambda: waited.append(time.sleep(0.01))
    to_host = drawer.to_host
    drawer.to_host = lambda result: time.sleep(0.03) or to_host(result)
    type(drawer).copies, plain = property(lambda self: True), type(drawer).copies
    try:
        copies = watch_copies(drawer)
    finally:
        type(drawer).copies = plain
    parts = phases_of_one(drawer, ["a"], [0], copies)
    assert set(parts) == {*PHASES, "total"}
    assert 0.05 <= parts["copy"] < 0.3  # to_host, and one wait after each of the two copies
    assert parts["generator"] >= 0.02  # the waits before them
    assert sum(parts.values()) == pytest.approx(2 * parts["total"])
    assert len(waited) == 8  # text and generator


def test_a_device_that_rounds_has_no_phase_for_it(tiny_checkpoint):
    drawer = load_eager(tiny_checkpoint, "cpu")
    drawn = []
    kind = type("Rounding", (type(drawer),), {"rounds_on_device": True})
    drawer.__class__ = kind
    kind.draw = lambda self, *rows: drawn.append(1) or super(kind, self).draw(*rows)
    parts = phases_of_one(drawer, ["a"], [0])
    assert set(parts) == {*PHASES, "total"} - {"copy", "uint8"}
    assert drawn == [1]


def test_on_a_gpu_the_time_without_png_is_told(report):
    titles = [title for title, _, _ in tables_of(report)]
    gpu = {
        "name": "a GPU",
        "compute_capability": "9.0",
        "memory_bytes": 1,
        "driver": "1",
        "cuda": "13",
        "cudnn": 9,
    }
    on_gpu = {**report, "machine": {**report["machine"], "gpu": gpu}}
    found = {title: (columns, rows) for title, columns, rows in tables_of(on_gpu)}
    (title,) = found.keys() - set(titles)
    columns, (_, own) = found[title]
    samples = report["subjects"][MEASURED]["latency"]["3"]["samples"]
    middle = np.median(np.subtract(samples["total"], samples["png"]))
    assert columns[-3:] == ["3 pictures at once, ms", f"× {report['reference']}", "pictures/s"]
    assert own[0] == MEASURED
    assert own[-1] == f"{3 / middle:,.0f}"


# Planted faults


def test_a_bundle_of_another_checkpoint_is_told(config, tmp_path):
    other = tmp_path / "other.safetensors"
    save_galip(other, Galip(preset("tiny")))
    report = run(dataclasses.replace(config(rounds=1), model=str(other)))
    assert "was not exported from" in report.warnings[0]
    assert report.subjects[MEASURED]["parity"]["max_abs"] > 1e-2


@pytest.fixture
def plant(config, monkeypatch, no_launches):
    """`plant(change)`: a subject `planted`, whose eager model `change` has changed."""
    real = bench.subjects

    def planting(change):
        def load():
            drawer = load_eager(Path(config().model), "cpu")
            change(drawer.model.generator.to_rgb.weight.data)
            return drawer

        monkeypatch.setattr(bench, "subjects", lambda *a: [*real(*a)[:1], subjects.Subject("planted", load)])

    return planting


def test_a_wrong_weight_is_found(config, plant, tmp_path):
    plant(lambda weight: weight[0, 0].add_(0.1))
    report = run(config(subjects=("planted",), rounds=1), pictures=tmp_path)
    assert report.subjects["planted"]["parity"]["max_abs"] > 1e-3
    assert (tmp_path / "planted.png").stat().st_size > 100


def test_nan_is_counted_and_takes_no_time(config, plant):
    plant(lambda weight: weight.fill_(float("nan")))
    report = run(config(subjects=("planted",), rounds=1))
    planted = report.subjects["planted"]
    assert planted["parity"]["not_finite"] == 5
    assert planted["latency"] == {}
    assert report.warnings == ["planted: 5 of 5 pictures have NaN or infinity; its latency is not measured"]
    document = dataclasses.asdict(report)
    assert "| planted | – |" in markdown(document)
    assert "planted" in page(document)
    uncounted = run(config(subjects=("planted",), rounds=1, pictures=0))
    assert uncounted.subjects["planted"]["parity"]["not_finite"] == 4  # one of each batch at least


def test_a_device_that_gives_way_is_an_error(config, monkeypatch):
    def gives_way():
        raise ProviderUnavailable("device 'cuda' was asked for, but onnxruntime started only CPU")

    real = bench.subjects
    monkeypatch.setattr(
        bench, "subjects", lambda *a: [*real(*a)[:1], subjects.Subject("bundle-cuda-fp32", gives_way)]
    )
    with pytest.raises(ProviderUnavailable, match="started only CPU"):
        run(config(subjects=("bundle-cuda-fp32",)))
    report = run(config(subjects=(), rounds=1))
    assert list(report.subjects) == ["eager-fp32"]
    assert "started only CPU" in report.unavailable["bundle-cuda-fp32"]


def test_a_slow_neighbour_makes_it_noisy():
    def launch(times, others):
        return Launch({"eager-fp32": {"1": {"total": times}}}, {}, others)

    calm = [launch([level] * 10, 0.0) for level in (1.0, 1.3)]  # processes may differ
    assert bench._noise(calm)["noisy"] is False
    varied = bench._noise([launch([1.0, 1.0, 1.5, 1.5] * 5, None)])
    assert (varied["noisy"], varied["others"]) == (True, None)
    assert "vary by 40%" in varied["reasons"][0]
    assert "took 30% of the CPUs' time" in bench._noise([*calm, launch([1.0], 0.3)])["reasons"][0]


def test_a_subject_that_fails_is_told_and_the_others_are_measured(config, tiny_checkpoint, monkeypatch):
    drawer, other = (load_eager(tiny_checkpoint, "cpu") for _ in range(2))
    calls = []

    def fails(noise, sentence):
        calls.append(len(noise))
        if len(calls) == 4:
            raise MemoryError("no more of it")
        return plain(noise, sentence)

    plain, other.decode = other.decode, fails
    samples, failed = measure_latency({"A": drawer, "B": other}, ["a"], batches=(1, 2), rounds=4, warmup=0)
    assert failed == {"B": "MemoryError at batch 2: no more of it"}
    assert len(calls) == 4
    assert list(samples) == ["A"]
    assert len(samples["A"][2]["total"]) == 4

    def lost(task, progress=None):
        seconds = {"generator": [1.0] * task.rounds, "total": [1.0] * task.rounds}
        kept = {str(size): seconds for size in task.batch}
        return Launch({"eager-fp32": kept}, {MEASURED: "MemoryError at batch 2: no more"}, None)

    monkeypatch.setattr(bench, "launch", lost)
    report = run(config())
    assert report.subjects[MEASURED]["latency"] == {}
    assert report.warnings == [f"{MEASURED} failed while it was timed: MemoryError at batch 2: no more"]

    monkeypatch.setattr(bench, "launch", lambda *_: Launch({}, {"eager-fp32": "OSError: gone"}, None))
    with pytest.raises(QualityGateFailed, match="eager-fp32 failed while it was timed: OSError"):
        run(config())


def test_what_does_not_start_is_listed_unless_it_was_named(config, monkeypatch, no_launches):
    def load():
        raise RuntimeError("the compiler is broken")

    real = bench.subjects
    monkeypatch.setattr(bench, "subjects", lambda *a: [*real(*a)[:1], subjects.Subject("odd", load)])
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
    seen, run = [], released.model.text.forward
    released.model.text.forward = lambda tokens: seen.append(tokens.shape[1]) or run(tokens)
    sentence = released.encode_text(["a", "b"])
    assert seen == [released.dimensions.context_length]
    np.testing.assert_allclose(sentence, eager.encode_text(["a", "b"]), atol=1e-5)
    noise = eager.noise([1, 2])
    image = eager.decode(noise, sentence)
    assert np.abs(released.decode(noise, sentence) - image).max() < 1e-4 * image.std()


def test_what_is_measured_on_request_only(tiny_models):
    known = subjects.subjects(tiny_models)
    assert "released-fp32" not in {each.name for each in subjects.choose(known, [])}
    assert "bundle-openvino-fp32" in {each.name for each in subjects.choose(known, [])}
    assert "released-fp32" in {each.name for each in subjects.choose(known, ["released-fp32"])}


def test_a_bundle_without_rewrites_beside_it(config, tiny_checkpoint, tmp_path):
    plain = tmp_path / "plain"
    export_bundle(tiny_checkpoint, plain, rewrites="none")
    names = ("plain-cpu-fp32", "plain-openvino-fp32", "released-fp32", MEASURED)
    report = run(config(plain_bundle=str(plain), subjects=names, cold_starts=1))
    assert set(report.subjects) == {"eager-fp32", *names}
    for name in names[:2]:
        assert (report.subjects[name]["parity"]["psnr_min"] or np.inf) > 60
        assert report.subjects[name]["fresh"][0]["seconds"]["total"] > 0
    assert report.subjects["plain-cpu-fp32"]["disk_bytes"] != report.subjects[MEASURED]["disk_bytes"]
    table = summary(dataclasses.asdict(report))
    (row,) = [line for line in table.splitlines() if line.startswith("| released-fp32 |")]
    assert row.count("(1.00×)") == 2  # ratios are to it
    other = tmp_path / "other"
    checkpoint = tmp_path / "other.safetensors"
    save_galip(checkpoint, Galip(preset("tiny")))
    export_bundle(checkpoint, other)
    with pytest.raises(UsageError, match=r"from different checkpoints; export .* --rewrites none"):
        run(config(plain_bundle=str(other)))
    with pytest.raises(UsageError, match="is not without rewrites"):
        run(config(plain_bundle=config().bundle))


def test_others_are_noticed(monkeypatch):
    from galip_bench import machine

    ticks = iter([(100.0, 50.0, 20.0), (120.0, 66.0, 30.0)])  # of 20 s 16 were busy, 10 by us
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    assert machine.Others().share() == pytest.approx(0.3)
    monkeypatch.setattr(machine, "_ticks", lambda: None)
    assert machine.Others().share() is None
    monkeypatch.undo()
    began = machine._ticks()
    sum(range(10**7))
    ended = machine._ticks()
    assert ended[2] > began[2]
    assert ended[0] - began[0] >= ended[1] - began[1] >= 0


# Mistakes


def test_mistakes(config, tmp_path):
    for changes, message in (
        ({"rounds": 0}, "rounds is 0; it must be 1 or more"),
        ({"rounds": 3, "launches": 4}, "3 rounds can't be divided among 4 launches"),
        ({"max_minutes": float("nan")}, "max_minutes is nan"),
        ({"max_minutes": float("inf")}, "max_minutes is inf"),
        ({"fid": 20, "against": "x.npz", "split": "test"}, "x.npz has statistics only"),
        ({"threads": 0}, "threads is 0"),
        ({"batch": ()}, "batch is"),
        ({"batch": (0,)}, "sizes of 1 or more"),
        ({"batch": (2, 2)}, "each size once"),
    ):
        with pytest.raises(UsageError, match=message):
            config(**changes)
    with pytest.raises(UsageError, match="no subject onnx; there are eager-fp32, eager-bf16"):
        run(config(subjects=("onnx",)))
    with pytest.raises(ProviderUnavailable, match="bundle-cuda-fp32 can't be measured here: the installed"):
        run(config(subjects=("bundle-cuda-fp32",)))
    with pytest.raises(UsageError, match="there is no file /nowhere"):
        run(dataclasses.replace(config(), model="/nowhere"))
    with pytest.raises(UsageError, match="give --model, too"):
        run(dataclasses.replace(config(), model=""))


def test_a_reference_with_nan_is_refused(config, monkeypatch):
    monkeypatch.setattr(bench, "draw_raw", lambda *_: np.full((1, 3, 4, 4), np.nan, np.float32))
    with pytest.raises(QualityGateFailed, match="eager-fp32 itself gives NaN"):
        run(config(rounds=1))
