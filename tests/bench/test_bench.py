"""`galip bench` on a tiny model: what it says, and that planted faults are found."""

import copy
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from galip_bench import bench, fresh, subjects
from galip_bench.bench import BenchConfig, from_json, run
from galip_bench.compare import compare, read_report
from galip_bench.latency import PHASES, measure_latency
from galip_bench.parity import parity_of, side_by_side
from galip_bench.summary import median_interval, ratio_of, spread, summarise
from galip_bench.tables import markdown, tables_of
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

from galip.cli import main
from galip.eager import load_eager

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = ("bundle-cpu-fp32",)


@pytest.fixture(scope="module")
def tiny_bundle(tiny_checkpoint, tmp_path_factory):
    from galip_export import export_bundle

    bundle = tmp_path_factory.mktemp("bench") / "bundle"
    export_bundle(tiny_checkpoint, bundle)
    return bundle


@pytest.fixture(scope="module")
def config(tiny_checkpoint, tiny_bundle):
    def make(**changes):
        options = {"subjects": MEASURED, "batch": (1, 3), "rounds": 6, "warmup": 1, "cold_starts": 0}
        options |= {"pictures": 5, "threads": 1, **changes}
        return BenchConfig(checkpoint=str(tiny_checkpoint), bundle=str(tiny_bundle), **options)

    return make


@pytest.fixture(scope="module")
def report(config):
    return dataclasses.asdict(run(config()))


# Summaries


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_summary_of_anything(samples):
    summary = summarise(samples)
    assert summary.min <= summary.p50
    assert summary.count == len(samples)
    assert summary.min <= summary.mean * (1 + 1e-12)
    low, high = summary.median_interval_95
    assert low <= summary.p50 * (1 + 1e-12)
    assert high >= summary.p50 * (1 - 1e-12)
    assert (summary.p90 is None) == (len(samples) < 50)


def test_quantiles_only_with_samples_enough():
    assert summarise(range(1, 100)).p95 is None
    assert summarise(range(1, 101)).p95 == pytest.approx(95.05)
    assert summarise(range(1, 500)).p99 is None
    assert summarise(range(1, 501)).p99 == pytest.approx(495.01)


def test_a_ratio_cancels_what_slows_a_whole_round():
    rng = np.random.default_rng(0)
    load = rng.uniform(1, 3, 40)
    ratio = ratio_of(0.7 * load * rng.normal(1, 0.01, 40), load)
    assert ratio.median == pytest.approx(0.7, rel=0.01)
    assert ratio.interval_95[1] - ratio.interval_95[0] < 0.02
    assert spread(load) > 0.3


def test_the_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = median_interval(rng.exponential(size=40))
        covered += low <= np.log(2) <= high
    assert 0.88 <= covered / 200 <= 1


# A run


def test_what_a_report_holds(report):
    assert list(report["subjects"]) == ["eager-fp32", "bundle-cpu-fp32"]
    assert report["schema"] == 1
    for subject in report["subjects"].values():
        for batch in ("1", "3"):
            latency = subject["latency"][batch]
            samples = latency["samples"]
            assert set(samples) == {*PHASES, "total"}
            assert all(len(each) == 6 for each in samples.values())
            for parts in zip(*samples.values(), strict=True):
                assert sum(parts[:-1]) == pytest.approx(parts[-1], rel=1e-6)
            assert latency["seconds"]["total"]["p50"] == pytest.approx(np.median(samples["total"]))
            assert latency["seconds"]["total"]["p99"] is None
        assert subject["disk_bytes"] > 0
    eager, bundle = report["subjects"].values()
    assert eager["latency"]["1"]["ratio"] == {"median": 1.0, "interval_95": (1.0, 1.0)}
    assert eager["parity"]["max_abs"] == 0
    assert 0 < bundle["parity"]["max_abs"] < 1e-3
    assert bundle["parity"]["not_finite"] == 0
    assert bundle["parity"]["ssim_min"] > 0.999
    assert report["machine"]["versions"]["onnxruntime"]
    assert report["warnings"] == []
    json.dumps(report)


def test_tables_for_people(report):
    titles = [title for title, _, _ in tables_of(report)]
    assert [title.split(",")[0] for title in titles] == [
        "Latency from prompt to PNG", "Latency from prompt to PNG", "Parity with eager-fp32",
    ]  # fmt: skip
    text = markdown(report)
    assert "| bundle-cpu-fp32 |" in text
    assert "not measured: bundle-cuda-fp32: the installed onnxruntime was built without it" in text
    assert "equal" in text  # eager with itself


def test_a_result_can_be_repeated(report, config, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps(report))
    assert from_json(read_report(file)) == config()


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
    samples = measure_latency(drawers, ["a", "b"], batches=(1,), rounds=3, warmup=1)
    assert [name for name, _ in order] == list("ABABABAB")
    noises = [noise for _, noise in order]
    assert noises[::2] == noises[1::2]  # the same for all
    assert len(set(noises)) == 4  # others every round
    assert len(samples["A"][1]["total"]) == 3


# Planted faults


def slowed(report, name, factor):
    slow = copy.deepcopy(report)
    for latency in slow["subjects"][name]["latency"].values():
        latency["samples"]["total"] = [factor * value for value in latency["samples"]["total"]]
    return slow


@pytest.fixture
def steady(report):
    """As of a quiet machine: 1 % of noise."""
    rng = np.random.default_rng(0)

    def make():
        quiet = copy.deepcopy(report)
        for base, subject in zip((0.02, 0.01), quiet["subjects"].values(), strict=True):
            for latency in subject["latency"].values():
                latency["samples"]["total"] = list(base * rng.normal(1, 0.01, 30))
        return quiet

    return make


def test_a_slowdown_of_a_tenth_is_found_and_noise_is_not(steady):
    old, new = steady(), steady()
    assert not any(each.is_slower(0.05) or each.is_faster(0.05) for each in compare(old, new))
    found = [each for each in compare(old, slowed(new, "bundle-cpu-fp32", 1.1)) if each.is_slower(0.05)]
    assert [(each.subject, each.batch) for each in found] == [("bundle-cpu-fp32", 1), ("bundle-cpu-fp32", 3)]
    assert all(1.08 < each.change < 1.12 for each in found)
    everywhere = slowed(slowed(new, "bundle-cpu-fp32", 1.3), "eager-fp32", 1.3)  # a slower machine
    assert {each.subject for each in compare(old, everywhere) if each.is_slower(0.05)} == {"eager-fp32"}


def test_a_bundle_of_another_checkpoint_is_told(config, tmp_path):
    from galip.checkpoint import save_galip
    from galip.model import Galip
    from galip.presets import preset

    other = tmp_path / "other.safetensors"
    save_galip(other, Galip(preset("tiny")))
    report = run(dataclasses.replace(config(rounds=1), checkpoint=str(other)))
    assert "was not exported from" in report.warnings[0]
    assert report.subjects[MEASURED[0]]["parity"]["max_abs"] > 1e-2


def test_a_wrong_weight_is_found(config, monkeypatch, tmp_path):
    real = bench.subjects

    def planted(*arguments):
        def load():
            drawer = load_eager(Path(config().checkpoint), "cpu")
            drawer.model.generator.to_rgb.weight.data[0, 0] += 0.1
            return drawer

        return [*real(*arguments)[:1], subjects.Subject("planted", load)]

    monkeypatch.setattr(bench, "subjects", planted)
    report = run(config(subjects=("planted",), rounds=1), pictures=tmp_path)
    assert report.subjects["planted"]["parity"]["max_abs"] > 1e-3
    assert (tmp_path / "planted.png").stat().st_size > 100


def test_nan_is_counted():
    reference = np.random.default_rng(0).uniform(-1, 1, (6, 3, 16, 16)).astype(np.float32)
    result = reference + 1e-3
    result[1, 0, 0, 0], result[4, 2, 3, 3] = np.nan, np.inf
    result[2, 1, 5, 5] += 0.5
    parity = parity_of(reference, result)
    assert (parity.pictures, parity.not_finite, parity.worst) == (6, 2, 2)
    assert parity.max_abs == pytest.approx(0.501, rel=1e-3)
    assert side_by_side(reference[2], result[2]).shape == (16, 48, 3)
    nothing = parity_of(reference, np.full_like(reference, np.nan))
    assert (nothing.not_finite, nothing.max_abs, nothing.worst) == (6, None, None)


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


# Fresh processes


def test_a_fresh_process(tiny_checkpoint, tiny_bundle):
    began = time.monotonic()
    found = fresh.measure("bundle-cpu-fp32", tiny_checkpoint, tiny_bundle, prompt="a red box", batch=2)
    assert list(found.seconds) == ["start", "import", "load", "first_picture", "total"]
    assert sum(list(found.seconds.values())[:4]) == pytest.approx(found.seconds["total"])
    assert 0 < found.seconds["total"] < time.monotonic() - began
    assert 20e6 < found.peak_resident_bytes < 400e6  # without PyTorch, and without this process's memory
    assert found.peak_device_bytes is None
    with pytest.raises(ProviderUnavailable, match=r"failed and said: .*no subject bundle-cpu-fp64"):
        fresh.measure("bundle-cpu-fp64", tiny_checkpoint, tiny_bundle, prompt="a")


def test_a_bundle_s_process_has_no_torch():
    code = "import sys, galip_bench.fresh, galip_bench.subjects; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The command


@pytest.fixture
def call(capsys):
    def galip(*arguments):
        with pytest.raises(SystemExit) as done:
            main(["bench", *map(str, arguments)])
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return galip


def test_the_command(call, tiny_checkpoint, tiny_bundle, tmp_path):
    measured = [
        "--model",
        tiny_checkpoint,
        "--bundle",
        tiny_bundle,
        "--subjects",
        MEASURED[0],
        "--batch",
        "1,2",
    ]
    measured += ["--rounds", 3, "--warmup", 1, "--cold-starts", 1, "--pictures", 3, "--threads", 1]
    files = {name: tmp_path / f"ü.{name}" for name in ("json", "html", "markdown")}
    written = [part for name, file in files.items() for part in (f"--{name}", file)]
    code, out, err = call(*measured, *written, "--worst", tmp_path / "worst")
    assert code == 0, err
    assert "Cold start" in out
    assert (tmp_path / "worst" / f"{MEASURED[0]}.png").exists()
    page = files["html"].read_text()
    assert "://" not in page  # nothing is fetched
    assert page.count("<svg") == page.count("</svg>") == 5
    report = read_report(files["json"])
    assert report["subjects"][MEASURED[0]]["fresh"][0]["peak_resident_bytes"] > 20e6
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(slowed(report, MEASURED[0], 2)))
    assert call("--compare", files["json"], files["json"])[0] == 0
    code, out, err = call("--compare", files["json"], slow)
    assert code == 3
    assert f"{MEASURED[0]} at batch 1 by 100%" in err
    assert "slower" in out


def test_the_command_s_mistakes(call, tiny_bundle, tmp_path):
    for arguments, message in (
        (["--bundle", tiny_bundle], "give --model, too"),
        (["--batch", "1,x"], "numbers with commas"),
        (["--json", tmp_path / "no" / "x.json"], "does not exist"),
        (["--compare", tmp_path / "a", tmp_path / "b"], "cannot read"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), err
        assert message in err


# Mistakes


def test_mistakes(config, tmp_path):
    for changes, message in (
        ({"rounds": 0}, "rounds is 0; it must be 1 or more"),
        ({"batch": ()}, "batch is"),
        ({"batch": (0,)}, "sizes of 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            config(**changes)
    with pytest.raises(UsageError, match="no subject onnx; there are eager-fp32, eager-bf16"):
        run(config(subjects=("onnx",)))
    with pytest.raises(ProviderUnavailable, match="bundle-cuda-fp32 can't be measured here: the installed"):
        run(config(subjects=("bundle-cuda-fp32",)))
    file = tmp_path / "x.json"
    for content, message in (
        ("{", "is no JSON"),
        ("[]", "is no report"),
        ('{"subjects": {}}', "schema None"),
    ):
        file.write_text(content)
        with pytest.raises(FileRefused, match=message):
            read_report(file)
    with pytest.raises(UsageError, match="cannot read"):
        read_report(tmp_path / "nothing.json")


def test_a_reference_with_nan_is_refused(config, monkeypatch):
    monkeypatch.setattr(bench, "draw_raw", lambda *_: np.full((1, 3, 4, 4), np.nan, np.float32))
    with pytest.raises(QualityGateFailed, match="eager-fp32 itself gives NaN"):
        run(config(rounds=1))
