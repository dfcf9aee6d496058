"""`python -m galip_runtime`: files, output and exit codes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from error_checks import assert_names
from galip_runtime import __main__ as command
from galip_runtime.install import requirements
from galip_runtime.noise import MAX_SEED
from PIL import Image
from stub_bundle import make_stub_bundle


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def test_a_picture(shared_bundle, tmp_path, capsys, model):
    out = tmp_path / "apple.png"
    assert run(shared_bundle, "a red apple", "-o", out, "--seed", 20_261) == 0
    assert (np.asarray(Image.open(out)) == model.generate("a red apple", 20_261)[0]).all()
    output = capsys.readouterr()
    assert output.out == f"{out}\n"
    assert_names(output.err, 20_261)


def test_a_png_says_how_it_was_generated(shared_bundle, tmp_path, model):
    out = tmp_path / "a.png"
    assert run(shared_bundle, "a red apple", "-o", out, "--seed", 7) == 0
    assert Image.open(out).text == {"prompt": "a red apple", "seed": "7", "bundle": model.digest}
    assert run(shared_bundle, "a red apple", "-o", out, "--seed", 7, "--no-metadata") == 0
    assert Image.open(out).text == {}


def test_the_largest_seed(shared_bundle, tmp_path):
    assert run(shared_bundle, "a red apple", "-o", tmp_path / "a.png", "--seed", MAX_SEED) == 0


def test_one_row_for_each_prompt(shared_bundle, tmp_path, capsys, model):
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


def test_a_sampled_seed_is_printed_and_repeats_the_picture(shared_bundle, tmp_path, capsys, model):
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png", "--json") == 0
    (seed,) = json.loads(capsys.readouterr().out)["seeds"]
    assert (np.asarray(Image.open(tmp_path / "a.png")) == model.generate("red", seed)[0]).all()
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png") == 0
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    numbers = re.findall(r"\d+", capsys.readouterr().err)
    assert any((picture == model.generate("red", int(number))[0]).all() for number in numbers)


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["--seed", "-1"], 2, [-1, MAX_SEED]),
        (["--seed", str(2**64)], 2, [2**64, MAX_SEED]),
        (["--seed", str(MAX_SEED), "--count", "2"], 2, [MAX_SEED, 2]),
        (["--count", "0"], 2, ["count", 0]),
        (["--threads", "0"], 2, ["threads", 0]),
        (["--device", "gpu"], 2, ["gpu", "cuda", "openvino"]),
        (["--precision", "int4"], 2, ["int4", "bf16", "fp16", "fp32", "int8"]),
        (["-o", "a.txt"], 2, [".txt", ".png"]),
        (["-o", "/nowhere/a.png"], 2, ["/nowhere"]),
        (["--device", "cuda"], 5, ["cuda", *requirements("gpu")]),
    ],
    ids=str,
)
def test_an_error_is_one_line_on_stderr(
    shared_bundle, tmp_path, monkeypatch, capsys, arguments, code, values
):
    monkeypatch.chdir(tmp_path)
    assert run(shared_bundle, "red", "-o", "a.png", *arguments) == code
    output = capsys.readouterr()
    assert_names(output.err, *values)
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["b"],
        ["b", "red"],
        ["-o", "a.png"],
        ["b", "red", "-o", "a.png", "--seed", "x"],
        ["b", "red", "-o", "a.png", "--what"],
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments):
    with pytest.raises(SystemExit) as leave:
        command.main(arguments)
    assert leave.value.code == 2
    assert_names(capsys.readouterr().err, "BUNDLE", "PROMPT", "--seed")


def test_one_text_is_a_prompt_for_the_shipped_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "car").mkdir()  # no bundle
    for prompt in ("a car, flat style", "car"):
        assert run(prompt, "-o", "a.png", "--json", "--device", "cpu") == 0
        assert json.loads(capsys.readouterr().out)["prompts"] == [prompt]
        assert Image.open("a.png").size == (128, 128)


def test_a_bundle_without_a_prompt(shared_bundle, tmp_path, capsys):
    for text in (shared_bundle, "default"):
        assert run(text, "-o", tmp_path / "a.png") == 2
        assert_names(capsys.readouterr().err, text, "prompt")
    assert os.listdir(tmp_path) == []


def test_several_prompts_for_the_shipped_model(tmp_path, capsys, shared_bundle):
    out = tmp_path / "a.png"
    assert run("default", "a car", "a rose", "-o", out, "--json", "--device", "cpu") == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == ["a car", "a rose"]
    assert run("default", shared_bundle, "-o", out, "--json", "--device", "cpu") == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == [str(shared_bundle)]


def test_the_first_of_several_texts_is_the_bundle(shared_bundle, tmp_path, capsys):
    for missing in ("a car", tmp_path):
        assert run(missing, "a rose", "-o", tmp_path / "a.png") == 4
        assert_names(capsys.readouterr().err, missing, "galip export", "default")
    assert run(shared_bundle, "-o", tmp_path / "a.png", "a rose") == 0  # options may come in between


def test_exit_codes_of_broken_bundles_and_pictures(bundle, tmp_path, capsys):
    assert run(make_stub_bundle(tmp_path / "nan", nan=True), "red", "-o", tmp_path / "a.png") == 3
    (bundle / "generator.onnx").write_bytes(b"")
    assert run(bundle, "red", "-o", tmp_path / "a.png") == 4
    assert run(tmp_path / "none", "red", "-o", tmp_path / "a.png") == 4
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_ctrl_c(shared_bundle, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("galip_runtime.model.Model.generate", interrupt)
    assert run(shared_bundle, "red", "-o", tmp_path / "a.png") == 130
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert os.listdir(tmp_path) == []


def test_as_a_module(shared_bundle, tmp_path):
    call = [sys.executable, "-m", "galip_runtime"]
    process = subprocess.run([*call, "--help"], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0
    assert "BUNDLE" in process.stdout
    process = subprocess.run(
        [*call, shared_bundle, "red", "-o", "/nowhere/a.png"], capture_output=True, timeout=60
    )
    assert process.returncode == 2
