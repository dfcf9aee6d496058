"""What a training shows: its options, losses in words, the commands to go on with, and TensorBoard."""

import dataclasses
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import IMAGES, TENSORS, EventAccumulator
from train.layout_fixtures import WRITERS

from galip.train.commands import after_train, after_train_clip, changed_options, resume_command
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.contrastive import train_clip
from galip.train.gan import train
from galip.train.labels import in_words, label_of
from galip.train.options import resolve

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_data, tiny_clip, tmp_path):
    def make(out="run", **changes):
        options = {"model": "tiny", "steps": 2, "batch_size": 4, "log_every": 1, "save_every": 2}
        options |= {"precision": "fp32", "device": "cpu", "data": str(tiny_data), **changes}
        return GanConfig(clip=str(tiny_clip), out=str(tmp_path / out), **options)

    return make


# Commands


def test_options_that_differ_come_back_from_the_command_line():
    config = GanConfig(
        data="my pictures", clip="it's.pt", out="runs/a", flip=False, pose=True, lr_g=3e-5,
        exclude=("a=b c", "rank>3"), steps=7,
    )  # fmt: skip
    line = changed_options(config)
    assert line == (
        """--data 'my pictures' --clip 'it'"'"'s.pt' --out runs/a --no-flip --exclude 'a=b c' """
        """--exclude 'rank>3' --steps 7 --lr-g 3e-05 --pose"""
    )
    defaults = GanConfig(data="d", clip="c", out="o")
    assert changed_options(defaults) == "--data d --clip c --out o"


def test_a_run_is_resumed_as_it_was_started():
    alone = resume_command("train", "my runs/1", environment={})
    assert alone == "galip train --resume --out 'my runs/1'"
    assert resume_command("train-clip", "r", 9, {}) == "galip train-clip --resume --out r --steps 9"
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    assert (
        resume_command("train", "r", environment=started)
        == "torchrun --nproc-per-node=4 -m galip train --resume --out r"
    )
    several = resume_command("train", "r", environment={**started, "WORLD_SIZE": "8"})
    assert several.startswith("torchrun --nnodes=2 ")
    assert "--nproc-per-node=4 -m galip train" in several


def parsed(lines):
    """The words of each command by its first two or the option that tells it from others."""
    commands = [shlex.split(line.partition(": ")[2]) for line in lines]
    return {(words[1], "--resume" in words): words[2:] for words in commands}


def test_what_to_do_with_a_model():
    config = GanConfig(
        data="d d", clip="c", out="o", layout="coco", evaluate_split="test", exclude=("k",), steps=5
    )
    prompts = ["-x", "a red\nbox", "it's a box", "a third"]
    commands = parsed(after_train(config, Path("o/model.safetensors"), prompts))
    assert commands == {
        ("sample-grid", False): [
            "a red box", "it's a box", "--model", "o/model.safetensors", "--out", "o/grid.png",
        ],
        ("evaluate", False): [
            "o/model.safetensors", "--against", "d d", "--layout", "coco", "--split", "test",
            "--exclude", "k",
        ],
        ("export", False): ["o/model.safetensors", "--out", "o/bundle"],
        ("train", True): ["--resume", "--out", "o", "--steps", "10"],
    }  # fmt: skip
    warmed = parsed(after_train(dataclasses.replace(config, warmup_steps=1), Path("o/model.safetensors"), []))
    assert commands.keys() - warmed.keys() == {("train", True)}
    against = parsed(after_train(dataclasses.replace(config, evaluate_against="real.npz"), Path("m"), []))
    assert against["evaluate", False][:3] == ["m", "--against", "real.npz"]
    assert "--layout" not in against["evaluate", False]


def test_a_generator_can_go_on_with_words_that_its_towers_learned(tiny_checkpoint, tiny_clip):
    for init, options, goes_on in (
        (tiny_checkpoint, {"lock_image": True, "whiten": True}, True),
        (tiny_checkpoint, {"lock_image": True}, False),
        (tiny_checkpoint, {"whiten": True}, False),
        (tiny_clip, {"lock_image": True, "whiten": True}, False),
    ):
        config = ContrastiveConfig(data="d", out="o", init=str(init), **options)
        words = parsed(after_train_clip(config, Path("c")))["train", False]
        assert words[:2] == ["--data", "d"]
        assert (words[-4:-2] == ["--init", str(init)]) == goes_on


def test_commands_are_ones_that_galip_takes(run_help):
    """Every option in them is one of its command."""
    gan, towers = GanConfig(data="d", clip="c", out="o"), ContrastiveConfig(data="d", out="o")
    lines = [*after_train(gan, Path("m"), ["p"]), *after_train_clip(towers, Path("c"))]
    for line in lines:
        _, command, *words = shlex.split(line.partition(": ")[2])
        for word in words:
            if word.startswith("--"):
                assert f"{word} " in run_help(command), f"{command} has no {word}"


@pytest.fixture
def run_help(capsys):
    from galip.cli import main

    def call(command):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return capsys.readouterr().out

    return call


# Words


def test_losses_in_words():
    means = {"d_real": 0.98, "d_mis": 0.5, "d_fake": 1.0, "magp": 0.0, "g_adv": 0.25, "clip_sim": 0.125}
    assert in_words(means) == (
        "discriminator: real 0.980, mismatched 0.500, fake 1.000, penalty 0.000 · "
        "generator: adversarial 0.250, CLIP similarity 0.125"
    )
    mixed = {"pixel": 0.5, "d_real": 1.0, "g_adv": 0.25}  # at the end of the warm-up
    assert in_words(mixed) == "generator: pixel distance 0.500, adversarial 0.250 · discriminator: real 1.000"
    assert in_words({"fid": 31.25, "new": 2.0}, ".4g") == "evaluation: FID 31.25 · new 2"


def test_every_scalar_has_words(config, logged):
    run = config(paired_steps=9, range_weight=1.0)
    said = []
    train(run, echo=said.append)
    names = logged(run.out)[0].keys() - {"step", "time"}
    assert len(names) == 10
    assert all(label_of(name).group for name in names)
    (step,) = [line for line in said if line.startswith("step 1/2")]
    assert "pixel distance" in step
    assert "discriminator: real" in step


# The beginning and the end of a run


def test_the_end_of_a_run_says_what_is_next(config):
    run, said = config(), []
    path = train(run, echo=said.append)
    (finished,) = [index for index, line in enumerate(said) if "finished after step 2;" in line]
    assert str(path) in said[finished]
    commands = parsed(said[finished + 1 :])
    assert commands["sample-grid", False][:2] == ["a red box", "a green box"]
    assert commands["train", True] == ["--resume", "--out", run.out, "--steps", "4"]
    said.clear()
    train(resolve(GanConfig, {"out": run.out, "steps": 3}, resume=True), resume=True, echo=said.append)
    assert said[0] == f"resuming {run.out} after step 2"
    assert any("finished after step 3;" in line for line in said)


def test_the_end_of_train_clip_says_what_is_next(tiny_data, tmp_path):
    run = ContrastiveConfig(
        data=str(tiny_data), out=str(tmp_path / "clip"), model="tiny", steps=2, batch_size=8, device="cpu",
        precision="fp32",
    )  # fmt: skip
    said = []
    path = train_clip(run, echo=said.append)
    commands = parsed(said[-2:])
    towers = GanConfig(
        **dict(zip(*[iter(word.lstrip("-") for word in commands["train", False])] * 2, strict=True))
    )
    assert (towers.data, towers.clip, towers.model) == (str(tiny_data), str(path), "tiny")
    assert commands["train-clip", True] == ["--resume", "--out", run.out, "--steps", "4"]


# TensorBoard


def events(out):
    accumulator = EventAccumulator(f"{out}/tensorboard", size_guidance={IMAGES: 0, TENSORS: 0})
    accumulator.Reload()
    return accumulator


def text(accumulator, name):
    """The steps and the lines of a text."""
    found = accumulator.Tensors(f"{name}/text_summary")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found]


def picture(accumulator, name):
    from io import BytesIO

    from PIL import Image

    event = accumulator.Images(name)[0]
    return np.asarray(Image.open(BytesIO(event.encoded_image_string)))


def test_tensorboard(config):
    run = config(sample_prompts=("a red box", "a blue box", "a zebra"))
    train(run, echo=lambda line: None)
    train(dataclasses.replace(run, steps=3, lr_g=5e-5), resume=True, echo=lambda line: None)
    shown = events(run.out)
    rates = {
        name: [event.value for event in shown.Scalars(f"learning_rate/{name}")]
        for name in ("generator", "discriminator")
    }
    assert rates["generator"] == pytest.approx([1e-4, 1e-4, 5e-5])
    assert rates["discriminator"] == pytest.approx([4e-4] * 3)
    assert len(shown.Scalars("discriminator/d_real")) == 3
    assert len(shown.Scalars("speed/pictures_per_second")) == 3
    options = text(shown, "options")
    assert [step for step, _ in options] == [0, 2]
    assert "    lr_g = 0.0001\n" in options[0][1]
    assert "    lr_g = 5e-05\n" in options[1][1]
    assert text(shown, "prompts")[0] == (0, "    a red box\n    a blue box\n    a zebra")
    assert [event.step for event in shown.Images("samples/generated")] == [2, 3]
    assert [event.step for event in shown.Images("samples/real")] == [0]
    real = picture(shown, "samples/real")
    colours = {tuple(colour) for colour in real.reshape(-1, 3).tolist()}
    assert {(230, 40, 40), (50, 80, 220)} <= colours, "the box of each caption that the data has"
    assert len(real) < len(picture(shown, "samples/generated")), "none of a zebra"


def test_real_pictures_of_a_stream(config, tmp_path):
    run = config(data=str(WRITERS["shards"](tmp_path / "shards")), stream="yes")
    train(run, echo=lambda line: None)
    shown = events(run.out)
    assert "a red disc number 0" in text(shown, "prompts")[0][1]
    assert picture(shown, "samples/real").shape[1] < picture(shown, "samples/generated").shape[1]


def test_train_clip_shows_its_rate(tiny_data, tmp_path):
    run = ContrastiveConfig(
        data=str(tiny_data), out=str(tmp_path / "clip"), model="tiny", steps=2, batch_size=8, device="cpu",
        precision="fp32", log_every=1,
    )  # fmt: skip
    train_clip(run, echo=lambda line: None)
    shown = events(run.out)
    assert shown.Scalars("learning_rate/towers")[0].value == pytest.approx(1e-3)
    assert math.isfinite(shown.Scalars("towers/loss")[0].value)
    assert "    batch_size = 8\n" in text(shown, "options")[0][1]


def test_prompts_differ_and_failures_do_not_stop_the_run(config, monkeypatch):
    from galip.data.loader import TrainingLoader

    run, said = config(steps=1, save_every=1), []

    def unreadable(self, count):
        raise OSError("gone")

    monkeypatch.setattr(TrainingLoader, "sample_captions", unreadable)
    train(run, echo=said.append)
    assert any("gone" in line for line in said)
    assert any("--sample-prompts" in line for line in said)
    assert any("finished after step 1;" in line for line in said)
    assert not Path(run.out, "samples").exists()
