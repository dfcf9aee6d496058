"""The generator beside other runtimes."""

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import galip_bench.models
import galip_runtime
import numpy as np
import pytest
from galip_bench.models import Models
from galip_runtime.errors import ProviderUnavailable, UsageError
from studies.peers import __main__ as command
from studies.peers import measure as study
from studies.peers.instructions import measured_on
from studies.peers.loaders import BASE, PEERS, Task
from studies.peers.process import PeerFailed, PeerProcess
from studies.peers.table import table
from studies.peers.worker import Turns

HERE = measured_on(["avx2"])[0]


@pytest.fixture(scope="module")
def models(tiny_checkpoint, tiny_bundle):
    """One bundle for both, as every export takes its time."""
    return Models(tiny_checkpoint, tiny_bundle, tiny_bundle)


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory):
    """The result file of a run of the command, in which MNN and ncnn are not installed."""
    out = tmp_path_factory.mktemp("results")
    words = [
        "tiny",
        "--model",
        models.checkpoint,
        "--bundle",
        models.bundle,
        "--plain-bundle",
        models.plain_bundle,
    ]
    words += ["--out", out, "--rounds", 2, "--batch", 1, 3, "--threads", 1, "--python", out / "none"]
    words += ["--peers", "plain-onnxruntime-fp32", "plain-openvino-fp32"]
    words += ["plain-mnn-fp32", "nokernels-cpu-fp32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["peers", *map(str, words)])
        patch.setattr(galip_bench.models, "_check_plain", lambda plain, models: None)
        patch.setattr(command, "cpu_features", lambda: ["avx2", "avx512f"])
        command.main()
    (file,) = out.iterdir()
    assert file.name == "peers_tiny_avx512.json"
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("features", "keys"),
    [
        (["avx2", "avx512f", "amx_tile"], ["amx", "avx512_masked"]),
        (["avx2", "avx512f"], ["avx512"]),
        (["avx2"], ["avx2"]),
        (["asimd", "sve"], ["neon"]),
        ([], ["other"]),
    ],
)
def test_results_are_kept_apart_by_instructions(features, keys):
    found = measured_on(features)
    assert [each.key for each in found] == keys
    assert [bool(each.environment) for each in found] == [key.endswith("masked") for key in keys]


@pytest.mark.slow
def test_a_result(measured):
    assert list(measured["peers"]) == [
        BASE, "plain-onnxruntime-fp32", "plain-openvino-fp32", "nokernels-cpu-fp32",
    ]  # fmt: skip
    assert measured["pictures"] == 8
    for peer in measured["peers"].values():
        assert {batch: len(samples) for batch, samples in peer["seconds"].items()} == {"1": 2, "3": 2}
        assert min(peer["seconds"]["1"]) > 0
        assert peer["largest_error"] < 1e-3
        assert peer["least_psnr"] is None or peer["least_psnr"] > 60
    assert measured["peers"]["plain-openvino-fp32"]["library"].startswith("OpenVINO 20")
    assert list(measured["unavailable"]) == ["plain-mnn-fp32"]
    assert "make bench-peers" in measured["unavailable"]["plain-mnn-fp32"]
    assert measured["instructions"]["title"] == "AVX-512"


@pytest.mark.slow
def test_its_table(measured):
    lines = table([measured, measured]).splitlines()
    assert lines[0] == "**28×28, AVX-512**"
    assert lines[2].startswith(f"|  | 1 picture, ms | share of {BASE} (95 %) | 3 pictures at once, ms |")
    assert lines[4].split(" | ")[2] == "1"
    assert lines[5].startswith("| `plain-onnxruntime-fp32` | ")
    assert any(line.startswith("- plain-mnn-fp32 was not measured: ") for line in lines)
    assert lines.count(lines[0]) == 2


def test_a_turn_is_timed_with_other_sentences_than_the_last():
    rows = np.arange(10, dtype=np.float32)[:, None]
    called = []

    def run(noise, sentence):
        assert np.array_equal(noise, sentence)
        called.append(noise[:, 0].tolist())
        if len(called) % 3 == 0:  # the second timed call of each turn takes long enough
            turns._least = 0
        return noise

    turns = Turns(run, rows, rows, checked=4)
    image, seconds = turns.take(2, 1)
    assert image[:, 0].tolist() == called[0] == [1, 2]
    assert seconds > 0
    assert called[1:5] == [[4, 5], [6, 7], [8, 9], [4, 5]]


def test_a_library_that_is_not_installed_is_named(models, tmp_path):
    task = Task("plain-mnn-fp32", "", "", {"plain": str(tmp_path)}, "", 0, "", 1, str(tmp_path))
    process = PeerProcess(task, Path(sys.executable), {})
    with contextlib.closing(process), pytest.raises(PeerFailed) as failure:
        process.loaded()
    assert str(failure.value) == "MNN is not installed: pip install MNN"


@pytest.mark.parametrize(
    ("kernels", "peer", "reason"),
    [
        ({"target": "AVX-512", "version": "1.0"}, "bundle-cpu-fp32", None),
        ({"target": "AVX2", "version": "1.0"}, "bundle-cpu-avx2-fp32", None),
        ({"target": "NEON", "version": "1.0"}, "bundle-cpu-avx2-fp32", "use NEON here, not AVX2"),
        ({"target": None, "why": "not installed"}, "bundle-cpu-fp32", "not installed"),
    ],
)
def test_a_row_of_the_kernels_is_theirs(kernels, peer, reason, monkeypatch):
    model = SimpleNamespace(info=lambda: {"kernels": kernels}, decode=None)
    monkeypatch.setattr(galip_runtime, "load", lambda *arguments, **options: model)
    task = Task(peer, "", "", {}, "", 0, "", 1, "")
    if reason:
        with pytest.raises(RuntimeError, match=reason):
            PEERS[peer].load(task)
    else:
        assert PEERS[peer].load(task).kernels == kernels


class Fake:
    """Processes that return what eager draws, each with a fault of its own."""

    pictures: np.ndarray
    started: ClassVar[list["Fake"]] = []

    def __init__(self, task, python, environment):
        self.peer = task.peer
        self.closed = False
        self.started.append(self)
        with np.load(task.inputs) as inputs:
            assert len(np.unique(inputs["sentence"], axis=0)) == len(inputs["sentence"])

    def close(self):
        self.closed = True

    def loaded(self):
        if self.peer == "compiled-fp32":
            raise PeerFailed("no compiler")
        return {"library": "none", "kernels": None}

    def turn(self, batch, first):
        if self.peer == "plain-mnn-fp32" and first:
            raise PeerFailed("it ended")
        image = self.pictures[first : first + batch].copy()
        image[..., 0, 0] += {"plain-openvino-fp32": 0.5, "plain-ncnn-fp32": np.nan}.get(self.peer, 0)
        return image, 2.0 if self.peer == BASE else 1.0


def test_pictures_are_compared_and_who_fails_is_left_out(models, monkeypatch):
    def keep(*arguments):
        Fake.pictures = write(*arguments)
        return Fake.pictures

    write = study._write_inputs
    monkeypatch.setattr(study, "_write_inputs", keep)
    monkeypatch.setattr(study, "PeerProcess", Fake)
    monkeypatch.setattr(study, "_PAUSE", 0)
    peers = [name for name in PEERS if name.startswith(("compiled", "plain"))]
    result = study.measure(models, study.Plan(peers, (1, 2), rounds=3, warmup=1, threads=1), HERE)
    assert result["unavailable"] == {
        "compiled-fp32": "no compiler",
        "plain-ncnn-fp32": "a picture has NaN or infinity",
        "plain-mnn-fp32": "it ended",
    }
    exact, other = (result["peers"][name] for name in ("plain-onnxruntime-fp32", "plain-openvino-fp32"))
    assert all(process.closed for process in Fake.started)
    assert result["pictures"] == len(Fake.pictures) == 9
    assert exact["seconds"] == {1: [1.0] * 3, 2: [1.0] * 3}
    assert exact["largest_error"] == 0
    assert exact["least_psnr"] is None
    assert other["largest_error"] == pytest.approx(0.5 / Fake.pictures.std())
    assert 20 < other["least_psnr"] < 60
    cells = [line.split(" | ") for line in table([result]).splitlines() if line.startswith("| `plain")]
    assert cells[0][2] == "0.50 (0.50 to 0.50)"
    assert cells[0][-1] == "equal |"


def test_without_the_base_there_is_no_result(models, monkeypatch):
    def none(*arguments):
        raise PeerFailed("no memory")

    monkeypatch.setattr(study, "PeerProcess", none)
    with pytest.raises(ProviderUnavailable, match=f"{BASE}.*no memory"):
        study.measure(models, study.Plan(["plain-mnn-fp32"], rounds=1, threads=1), HERE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds must be a whole number of at least 1"),
        (["--batch", "1", "0"], "--batch must be"),
        (["--threads", "0"], "--threads must be"),
        (["--out", "nowhere"], "--out is nowhere, which is no folder"),
        (["--peers", "plain-tvm-fp32"], "plain-mnn-fp32"),
    ],
)
def test_wrong_options(words, said, tmp_path, monkeypatch, capsys):
    options = ["--bundle", "b", "--plain-bundle", "p", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["peers", "tiny", *options, *words])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == UsageError.exit_code
    assert said in capsys.readouterr().err
