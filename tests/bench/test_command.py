"""The command `galip bench`."""

import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fake_cuda import Cuda, install
from galip_bench import BenchConfig, read_report
from galip_bench.compare import differences

from galip.cli import main
from galip.cli.bench import _batch_sizes, bench

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = "bundle-cpu-fp32"


@pytest.fixture
def call(capsys):
    def galip(*arguments):
        with pytest.raises(SystemExit) as done:
            main(["bench", *map(str, arguments)])
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return galip


@pytest.fixture
def measured(tiny_checkpoint, tiny_bundle, small_inception):
    """Options of a short run."""
    options = ["--model", tiny_checkpoint, "--bundle", tiny_bundle, "--subjects", MEASURED, "--batch", "1,2"]
    options += ["--inception", small_inception, "--threads", 1, "--launches", 1]
    return [*options, "--rounds", 3, "--warmup", 1, "--cold-starts", 1, "--pictures", 3]


def test_everything(call, measured, slowed, tiny_data, tmp_path):
    files = {name: tmp_path / f"ü.{name}" for name in ("json", "html", "markdown")}
    written = [part for name, file in files.items() for part in (f"--{name}", file)]
    code, out, err = call(
        *measured, *written, "--worst", tmp_path / "worst", "--fid", 12, "--against", tiny_data
    )
    assert code == 0, err
    assert "Cold start" in out
    assert "FID of 12 pictures against 24 real pictures" in out
    assert (tmp_path / "worst" / f"{MEASURED}.png").exists()
    page = files["html"].read_text()
    assert "://" not in page  # nothing is fetched
    assert page.count("<svg") == page.count("</svg>") == 5
    report = read_report(files["json"])
    assert report.subjects[MEASURED].fresh[0].peak_resident_bytes > 20e6
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".part"]

    slow = tmp_path / "slow.json"
    slow.write_text(slowed(report, MEASURED, 20).to_json())
    assert call("--compare", files["json"], files["json"])[0] == 0
    code, out, err = call("--compare", files["json"], slow)
    assert code == 3
    assert f"{MEASURED} at batch 1 is slower by 1900%" in err
    assert "slower" in out

    again = tmp_path / "again.json"
    code, _, err = call("--repeat", files["json"], "--json", again)
    assert code == 0, err
    repeated = read_report(again)
    assert repeated.warnings == []
    assert not [line for line in differences(report, repeated) if not line.startswith("machine")]


def test_what_is_not_given_is_the_config_s():
    options = inspect.signature(bench).parameters
    written = {"subjects": (), "batch": (1, 4, 8), "exclude": ()}  # on the command line in another form
    for field in dataclasses.fields(BenchConfig):
        given = options[field.name].default
        assert written.get(field.name, given) == field.default, field.name
    assert _batch_sizes(options["batch"].default) == (1, 4, 8)


def test_a_repeat_says_when_the_model_is_another(call, measured, tmp_path):
    old = tmp_path / "old.json"
    assert call(*measured, "--cold-starts", 0, "--pictures", 0, "--json", old)[0] == 0
    document = json.loads(old.read_text())
    document["models"]["checkpoint"]["sha256"] = "0" * 64
    old.write_text(json.dumps(document))
    code, out, _ = call("--repeat", old)
    assert code == 0
    assert "checkpoint or bundle is not the same as when" in out.replace("\n", " ")


def test_a_device_that_silently_gave_way(call, measured, monkeypatch):
    """onnxruntime claims to have CUDA and then runs on the CPU."""
    from galip_runtime.backends.libraries import import_onnxruntime

    onnxruntime = import_onnxruntime()
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    plain = onnxruntime.InferenceSession
    install(monkeypatch, Cuda())
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers, **more: plain(data, options, providers=["CPUExecutionProvider"]),
    )
    code, out, err = call(*measured, "--subjects", "bundle-cuda-fp32")
    assert (code, out) == (5, "")
    assert "cuda cannot load text_encoder.onnx: onnxruntime started only CPUExecutionProvider" in err


def test_nan_is_counted_and_told(call, measured, tiny_checkpoint, tmp_path, with_subject):
    from galip.eager import load_eager

    def load():
        model = load_eager(tiny_checkpoint, "cpu")
        model.model.generator.to_rgb.bias.data.fill_(float("nan"))
        return model

    with_subject("planted", load)
    file = tmp_path / "x.json"
    code, out, err = call(*measured, "--subjects", "planted", "--cold-starts", 0, "--json", file)
    assert code == 3
    assert "NaN or infinity in pictures of planted" in err
    assert "planted: 3 of 3 pictures have NaN or infinity" in out.replace("\n", " ")
    assert read_report(file).subjects["planted"].parity.not_finite == 3


def test_mistakes(call, tiny_bundle, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for arguments, message in (
        (["--compare", file, file, "--tolerance", "nan"], "--tolerance is nan"),
        (["--compare", file, file, "--tolerance", "-1"], "--tolerance is -1"),
        (["--bundle", tiny_bundle], "give --model, too"),
        (["--batch", "1,x"], "--batch is"),
        (["--batch", ""], "--batch is"),
        (["--rounds", 0], "rounds is 0"),
        (["--against", tmp_path], "--fid"),
        (["--json", tmp_path / "no" / "x.json"], "does not exist"),
        (["--html", tmp_path], "is a folder; name a file"),
        (["--worst", file], "is a file; name a folder"),
        (["--worst", tmp_path / "no" / "worst"], "does not exist"),
        (["--compare", tmp_path / "a", tmp_path / "b"], "cannot be read"),
        (["--model", tmp_path / "nothing"], "there is no file"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), err
        assert message in err
    for arguments, message in (
        (["--bundle", tmp_path / "nothing"], "does not exist: a bundle is a folder"),
        (["--model", file, "--bundle", tiny_bundle], str(file)),
        (["--repeat", file], "is no JSON"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (4, ""), err
        assert message in err


def test_ctrl_c_leaves_nothing(measured, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    options = [*map(str, measured), "--json", target / "x.json", "--rounds", "1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "galip", "bench", *options], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("measuring"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.iterdir()) == []
