"""`python -m galip_runtime`: what it writes, what it says and what it exits with."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from galip_runtime import __main__ as command
from galip_runtime.noise import MAX_SEED
from PIL import Image
from stub_bundle import make_stub_bundle


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def test_a_picture(shared_bundle, tmp_path, capsys, model):
    out = tmp_path / "apple.png"
    assert run(shared_bundle, "a red apple", "-o", out, "--seed", 7) == 0
    assert (np.asarray(Image.open(out)) == model.generate("a red apple", 7)[0]).all()
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "seed 7" in said.err


def test_the_largest_seed(shared_bundle, tmp_path):
    assert run(shared_bundle, "a red apple", "-o", tmp_path / "a.png", "--seed", MAX_SEED) == 0


def test_a_row_a_prompt(shared_bundle, tmp_path, capsys, model):
    out = tmp_path / "grid.png"
    assert (
        run(shared_bundle, "red", "pan", "-o", out, "--seed", 3, "--count", 3, "--device", "cpu", "--json")
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["prompts"] == ["red"] * 3 + ["pan"] * 3
    assert result["seeds"] == [3, 4, 5] * 2
    assert (result["device"], result["precision"], result["file"]) == ("cpu", "fp32", str(out))
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (18, 28, 3)
    assert (sheet[10:, 20:] == model.generate("pan", 5)[0]).all()


def test_a_drawn_seed_is_told_and_gives_the_picture_again(shared_bundle, tmp_path, capsys, model):
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png", "--json") == 0
    (seed,) = json.loads(capsys.readouterr().out)["seeds"]
    assert (np.asarray(Image.open(tmp_path / "a.png")) == model.generate("red", seed)[0]).all()
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png") == 0
    assert "seed " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--seed", "-1"], 2, "seed -1 is out of range"),
        (["--seed", str(2**64)], 2, "out of range"),
        (["--seed", str(MAX_SEED), "--count", "2"], 2, "pass the largest"),
        (["--count", "0"], 2, "at least 1 "),
        (["--threads", "0"], 2, "threads"),
        (["--device", "gpu"], 2, "'gpu' is unknown"),
        (["--precision", "int4"], 2, "it has bf16, fp16, fp32, int8"),
        (["-o", "a.txt"], 2, "a.txt"),
        (["-o", "/nowhere/a.png"], 2, "does not exist"),
        (["--device", "cuda"], 5, "galip-runtime[gpu]"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_a_line(shared_bundle, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert run(shared_bundle, "red", "-o", "a.png", *arguments) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [[], ["b"], ["b", "red"], ["b", "red", "-o", "a.png", "--seed", "x"],
                                       ["b", "red", "-o", "a.png", "--what"]])  # fmt: skip
def test_a_command_that_does_not_parse(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_broken_bundle_and_a_broken_picture(bundle, tmp_path, capsys):
    assert run(make_stub_bundle(tmp_path / "nan", nan=True), "red", "-o", tmp_path / "a.png") == 3
    (bundle / "generator.onnx").write_bytes(b"")
    assert run(bundle, "red", "-o", tmp_path / "a.png") == 4
    assert run(tmp_path / "none", "red", "-o", tmp_path / "a.png") == 4
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_interrupted(shared_bundle, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("galip_runtime.model.Model.generate", interrupt)
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png") == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_as_a_module(shared_bundle, tmp_path):
    call = [sys.executable, "-m", "galip_runtime"]
    done = subprocess.run([*call, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "BUNDLE" in done.stdout
    done = subprocess.run(
        [*call, shared_bundle, "red", "-o", "/nowhere/a.png"], capture_output=True, timeout=60
    )
    assert done.returncode == 2
