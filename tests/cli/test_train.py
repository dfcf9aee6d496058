"""`galip train` and `galip train-clip`."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from galip import early_checks
from galip.train import contrastive, gan
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.stop_signals import TrainingStopped


def test_resume_without_the_other_options(run, tiny_data, tiny_clip, tmp_path, one_thread):
    arguments = ["train", "--data", tiny_data, "--clip", tiny_clip, "--model", "tiny", "--batch-size", 4]
    arguments += ["--steps", 1, "--precision", "fp32", "--device", "cpu", "--out", tmp_path / "run"]
    code, _, err = run(*arguments)
    assert code == 0, err
    code, _, err = run("train", "--resume", "--out", tmp_path / "run", "--steps", 2)
    assert code == 0, err
    assert re.search(r"steps\D*1\D+2\b", err), "the changed option is named"
    assert "step 2/2" in err


def test_train_clip(run, tiny_data, tmp_path, one_thread):
    arguments = [
        "--data",
        tiny_data,
        "--model",
        "tiny",
        "--steps",
        1,
        "--batch-size",
        4,
        "--precision",
        "fp32",
    ]
    code, out, err = run("train-clip", *arguments, "--out", tmp_path / "clip", "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(out) == {"checkpoint": str(tmp_path / "clip" / "clip.safetensors")}
    assert "step 1/1" in err


@pytest.mark.parametrize(
    ("command", "module", "config_class"),
    [("train", gan, GanConfig), ("train-clip", contrastive, ContrastiveConfig)],
)
def test_options_are_the_config_s_fields(run, fail, monkeypatch, tmp_path, command, module, config_class):
    """Each option reaches its field; where none is options the config's own default holds."""
    configs = []
    name = command.replace("-", "_")
    monkeypatch.setattr(
        module, name, lambda config, resume, echo: configs.append((config, resume)) or Path("x")
    )
    check = "check_training" if command == "train" else "check_contrastive"
    monkeypatch.setattr(
        early_checks, check, lambda config, resume: early_checks.check_run(Path(config.out), resume)
    )  # which would miss the files
    required = [field for field in dataclasses.fields(config_class) if field.default is dataclasses.MISSING]
    options = [part for field in required for part in (f"--{field.name}", f"a {field.name}")]
    assert run(command, *options)[0] == 0
    plain = config_class(**{field.name: f"a {field.name}" for field in required})
    assert configs.pop() == (plain, False)

    others = {int: 24, float: 0.25, tuple: ("color", "cutout"), str: "fp32"}
    texts = {"device": "cpu", "crop": "random", "stream": "no"}
    values = {
        field.name: not field.default
        if isinstance(field.default, bool)
        else texts.get(field.name, others[type(field.default)])
        for field in dataclasses.fields(config_class)
        if field not in required
    }
    for field, value in values.items():
        option = f"--{'no-' if value is False else ''}{field.replace('_', '-')}"
        options += (
            [option]
            if isinstance(value, bool)
            else [
                part for item in (value if isinstance(value, tuple) else [value]) for part in (option, item)
            ]
        )
    monkeypatch.chdir(tmp_path)
    assert "a out" in fail(2, command, *options, "--resume")
    (tmp_path / "a out" / "states").mkdir(parents=True)
    (tmp_path / "a out" / "states" / "0000001.pt").touch()
    assert run(command, *options, "--resume")[0] == 0
    assert configs.pop() == (dataclasses.replace(plain, **values), True)


def test_the_preset_is_named_by_the_first_process(run, monkeypatch):
    monkeypatch.setattr(gan, "train", lambda config, resume, echo: Path("x"))
    monkeypatch.setattr(early_checks, "check_training", lambda config, resume: None)
    arguments = ["train", "--data", "d", "--clip", "c", "--out", "o"]
    assert "preset: icons" in run(*arguments, "--preset", "icons")[2].splitlines()
    assert "preset" not in run(*arguments)[2]
    monkeypatch.setenv("RANK", "1")
    assert run(*arguments, "--preset", "icons") == (0, "", "")


def test_a_stop_says_how_to_go_on(run, monkeypatch):
    def stopped(config, resume, echo):
        raise TrainingStopped("stopped after step 3")

    monkeypatch.setattr(gan, "train", stopped)
    monkeypatch.setattr(early_checks, "check_training", lambda config, resume: None)
    arguments = ["train", "--data", "d", "--clip", "c", "--out", "my run"]
    code, out, err = run(*arguments)
    assert (code, out) == (130, "")
    assert "galip train --resume --out 'my run'" in err
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert "torchrun --nproc-per-node=2 -m galip train --resume --out 'my run'" in run(*arguments)[2]
    monkeypatch.setenv("RANK", "1")
    assert "stopped" not in run(*arguments)[2]


@pytest.mark.parametrize("name", ["layout", "crop", "max_broken"])
def test_both_trainings_read_data_by_the_same_options(name):
    fields = [config.__dataclass_fields__[name] for config in (GanConfig, ContrastiveConfig)]
    assert fields[0].default == fields[1].default
    assert fields[0].metadata == fields[1].metadata


def test_train_clip_is_one_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from galip.cli import main; main()", "train-clip",
         "--data", str(tmp_path), "--out", str(tmp_path / "run")],
        env={**os.environ, "WORLD_SIZE": "2"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "torchrun" in done.stderr
    assert not (tmp_path / "run").exists()
