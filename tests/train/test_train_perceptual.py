"""`galip train` with a perceptual teacher: exact resume, what is logged, and nothing where it is off."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from error_checks import expect_error
from galip_runtime.errors import FileRefused, UsageError
from safetensors import safe_open

from galip.early_checks import check_training
from galip.train.config import GanConfig
from galip.train.gan import train
from galip.train.labels import label_of

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = {"perceptual_weight": 1.0, "projected_weight": 0.5, "perceptual_size": 16}
PHASES = {"warmup_steps": 1, "paired_steps": 3, "steps": 4}


def quiet(line):
    pass


@pytest.fixture
def config(tiny_data, tiny_clip, tiny_teacher, tmp_path):
    """A run of two steps, with the teacher if an option wants one."""

    def make(out="run", **changes):
        options = {"model": "tiny", "steps": 2, "batch_size": 4, "log_every": 1, "save_every": 2}
        if changes.keys() & {"perceptual_weight", "projected_weight"}:
            options["perceptual"] = str(tiny_teacher)
        options |= {"precision": "fp32", "device": "cpu", "seed": 7, **changes}
        return GanConfig(data=str(tiny_data), clip=str(tiny_clip), out=str(tmp_path / out), **options)

    return make


@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "precision": "bf16"}], ids=["whole", "parts, bf16"])
def test_stopped_and_resumed_equals_one_go(config, same_state, saved, more):
    whole, parts = (config(out, **BOTH, **PHASES, **more) for out in ("whole", "parts"))
    train(whole, echo=quiet)
    for steps in (2, 3, 4):
        train(dataclasses.replace(parts, steps=steps), resume=steps > 2, echo=quiet)
    assert saved(whole.out)["heads"]
    same_state(saved(whole.out), saved(parts.out))


def test_each_phase_logs_its_losses(config, logged):
    run = config(**BOTH, **PHASES, clip_shift=2, diff_augment=("color", "translation"))
    train(run, echo=quiet)
    names = {"perceptual", "p_real", "p_mis", "p_fake", "g_proj"}
    warm, *paired, alone = ({*line} & names for line in logged(run.out))
    assert (warm, paired, alone) == ({"perceptual"}, [names, names], names - {"perceptual"})
    assert all(math.isfinite(value) for line in logged(run.out) for value in line.values())
    assert all(label_of(name).group for name in names)


def test_the_heads_learn_and_are_no_part_of_the_model(config, saved):
    run = config(projected_weight=1.0)
    path = train(dataclasses.replace(run, steps=1), echo=quiet)
    one = saved(run.out)["heads"]
    train(run, resume=True, echo=quiet)
    two = saved(run.out)["heads"]
    learned = {name for name in one if not torch.equal(one[name], two[name])}
    others = ("mixing", "_u", "_v", "real.bias")  # inside the hinges the bias's gradients cancel out
    assert {name for name in one if not name.endswith(others)} <= learned
    assert not {name for name in learned if name.endswith("mixing")}
    plain = train(config("plain"), echo=quiet)
    with safe_open(path, "pt") as file, safe_open(plain, "pt") as other:
        assert file.keys() == other.keys()


def test_what_is_off_changes_nothing(config, saved, same_state):
    """LPIPS without paired losses, which alone would be a mistake, and the discriminator's step."""
    with expect_error(UsageError, "perceptual_weight", "warmup_steps"):
        config("never", perceptual_weight=9.0)
    heads_alone = {"projected_weight": 0.5, "perceptual_size": 16}
    plain, heads, alone = config("plain"), config("heads", **BOTH), config("alone", **heads_alone)
    train(plain, echo=quiet)
    train(dataclasses.replace(heads, steps=1), echo=quiet)
    assert saved(plain.out)["heads"] == {}
    train(dataclasses.replace(alone, steps=1), echo=quiet)
    same_state(*({**saved(run.out), "meter": None} for run in (heads, alone)))
    train(dataclasses.replace(plain, steps=1, out=f"{plain.out}1"), echo=quiet)
    one = saved(f"{plain.out}1")
    same_state(one["discriminator"], saved(heads.out)["discriminator"])
    assert not torch.equal(one["generator"]["to_rgb.weight"], saved(heads.out)["generator"]["to_rgb.weight"])


def test_each_weight_moves_the_generator(config, saved):
    """In the warm-up and, once it is over, by the heads in proportion to their weight."""
    weights = {}
    for out, options in {
        "pixel": {"warmup_steps": 1},
        "lpips": {"warmup_steps": 1, "perceptual_weight": 1.0},
        "lpips in a square": {"warmup_steps": 1, "perceptual_weight": 1.0, "perceptual_size": 16},
        "alone": {"warmup_steps": 1, "perceptual_weight": 1.0, "paired_pixel_weight": 0.0},
    }.items():
        train(config(out, steps=1, **options), echo=quiet)
        weights[out] = saved(config(out).out)["optimizer_g"]["state"][0]["exp_avg"]
    assert not torch.allclose(weights["lpips"], weights["lpips in a square"])
    torch.testing.assert_close(weights["lpips"] - weights["pixel"], weights["alone"], atol=1e-6, rtol=1e-3)


def test_heads_can_be_neither_added_nor_removed(config, saved):
    run = config()
    train(run, echo=quiet)
    with expect_error(UsageError, "projected_weight", "without"):
        train(dataclasses.replace(config(steps=3, **BOTH)), resume=True, echo=quiet)
    other = config("other", **BOTH)
    train(other, echo=quiet)
    with expect_error(UsageError, "projected_weight", "with"):
        train(config("other", steps=3), resume=True, echo=quiet)
    assert saved(other.out)["step"] == 2
    train(config("other", steps=3, **{**BOTH, "projected_weight": 2.0}), resume=True, echo=quiet)


def test_a_file_that_is_no_teacher(config, tmp_path, tiny_clip):
    run = config(**BOTH)
    missing = tmp_path / "missing.safetensors"
    with expect_error(FileRefused, missing):
        check_training(dataclasses.replace(run, perceptual=str(missing)), resume=False)
    with expect_error(FileRefused, tiny_clip, "icons.perceptual_weights"):
        train(dataclasses.replace(run, perceptual=str(tiny_clip)), echo=quiet)
    assert not Path(run.out, "model.safetensors").exists()
