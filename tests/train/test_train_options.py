"""Where options come from: presets, TOML files, the command line."""

import contextlib
import json
import os
from dataclasses import asdict

import pytest
from galip_runtime.errors import FileRefused, UsageError
from hypothesis import given
from hypothesis import strategies as st

from galip.presets import PRESETS, TABLE3
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.options import TRAINING_PRESETS, resolve

REQUIRED = {"data": "d", "clip": "c", "out": "o"}


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_every_preset_is_a_config_of_a_model_there_is(name):
    required = {option: value for option, value in REQUIRED.items() if option not in TRAINING_PRESETS[name]}
    config = resolve(GanConfig, required, name)
    assert config.model in PRESETS
    assert {field: getattr(config, field) for field in TRAINING_PRESETS[name]} == TRAINING_PRESETS[name]


@pytest.mark.parametrize("name", ["cub", "coco", "cc3m", "cc12m"])
def test_the_paper_s_presets(name):
    """Section 4: the options' defaults are the paper's."""
    config = resolve(GanConfig, REQUIRED, name)
    assert (config.lr_g, config.lr_d, config.beta1, config.beta2) == (1e-4, 4e-4, 0.0, 0.9)
    assert (config.similarity_weight, config.penalty_weight, config.penalty_power) == (4, 2, 6)
    assert config.model == "released"
    assert (config.warmup_steps, config.paired_steps, config.pose) == (0, 0, False)


def test_a_row_of_table_3_each():
    assert len(TABLE3) == 16
    assert PRESETS["table3-galip"] == PRESETS["released"] == PRESETS["table3-cfe-2-5-9"]
    assert PRESETS["table3-cfe-12"].discriminator.collect_layers == (11,)
    assert PRESETS["table3-pp-1-3"].generator.prompt_layers == (0, 1, 2)
    assert not PRESETS["table3-cd-cfe"].generator.use_clip


def test_the_command_line_comes_before_the_file_and_that_before_the_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('steps = 7\nlr_g = 1\npose = false\nexclude = ["rank>9"]\ndata = "é"\n')
    config = resolve(GanConfig, {"clip": "c", "out": "o", "lr_g": 0.5}, "icons", file)
    assert (config.steps, config.lr_g, config.pose, config.exclude) == (7, 0.5, False, ("rank>9",))
    assert config.data == "é"
    assert config.batch_size == 16  # the preset's


def test_a_run_that_is_resumed_has_its_own_options(tmp_path):
    began = resolve(GanConfig, {**REQUIRED, "steps": 7, "exclude": ("rank>9",)}, "icons")
    (tmp_path / "config.json").write_text(json.dumps(asdict(began)))
    resumed = resolve(GanConfig, {"out": str(tmp_path), "lr_g": 0.5}, resume=True)
    assert asdict(resumed) == {**asdict(began), "out": str(tmp_path), "lr_g": 0.5}
    assert resolve(GanConfig, {"out": str(tmp_path)}, "icons", resume=True).steps == 7  # over the preset
    with pytest.raises(UsageError, match=r"--data.*--clip"):
        resolve(GanConfig, {"out": str(tmp_path)})
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(FileRefused, match=r"config\.json"):
        resolve(GanConfig, {"out": str(tmp_path)}, resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 1", "stepz"),
        ('steps = "many"', "steps.*many"),
        ("steps = true", "steps.*True"),
        ("lr_g = true", "lr_g.*True"),
        ("exclude = 'x'", "exclude.*'x'"),
        ("exclude = [1]", r"exclude.*\[1\]"),
        ("[train]\nsteps = 1", "'train'"),
        ("steps =", r"run\.toml"),
        ("steps = 0", "steps.*0"),
        (f"steps = {'9' * 5000}", r"run\.toml"),
        ("a = " + "[" * 100_000, r"run\.toml"),
        (f"# {'x' * 2**20}", r"run\.toml"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve(GanConfig, REQUIRED, None, tmp_path / "run.toml")


@pytest.mark.timeout(20)
def test_a_file_that_would_not_end(tmp_path):
    pipe, device = tmp_path / "pipe.toml", tmp_path / "device.toml"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for file in (pipe, device):
        with pytest.raises(UsageError, match=file.name):
            resolve(GanConfig, REQUIRED, None, file)


@given(content=st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    with contextlib.suppress(UsageError):
        assert isinstance(resolve(GanConfig, REQUIRED, None, file), GanConfig)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--clip.*--out"):
        resolve(GanConfig, {"data": "d"})
    with pytest.raises(UsageError, match=r"--data.*--out"):
        resolve(ContrastiveConfig, {})
    with pytest.raises(UsageError, match="birds"):
        resolve(GanConfig, REQUIRED, "birds")
    with pytest.raises(UsageError, match=r"nothing\.toml"):
        resolve(GanConfig, REQUIRED, None, tmp_path / "nothing.toml")
