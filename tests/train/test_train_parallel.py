"""Two processes on one step do what one does, whatever the option; so do the parts of a batch."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from train.processes import CONTEXT, free_port, join

from galip.metrics import inception as inceptions
from galip.train.config import GanConfig
from galip.train.gan import train

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def _train(rank, port, environment, config, resume, inception):
    join(rank, port, environment)
    inceptions.find_weights = lambda path=None: inception
    train(config, resume=resume, echo=lambda line: None)


def in_two_processes(config, resume=False, inception=None):
    """As `torchrun --nproc-per-node 2`."""
    shared = (free_port(), dict(os.environ), config, resume, inception)
    processes = [CONTEXT.Process(target=_train, args=(rank, *shared)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


@pytest.fixture
def config(tiny_data, tiny_clip, tiny_teacher, tmp_path):
    def make(out, **options):
        if options.keys() & {"perceptual_weight", "projected_weight"}:
            options["perceptual"] = str(tiny_teacher)
        return GanConfig(
            data=str(tiny_data), clip=str(tiny_clip), out=str(tmp_path / out), model="tiny", steps=4,
            batch_size=8, precision="fp32", device="cpu", save_every=2, **options,
        )  # fmt: skip

    return make


def agree(one, two):
    """Equal up to the order of sums, in every learned number and its average."""
    assert one["step"] == two["step"]
    assert one["heads"].keys() == two["heads"].keys()
    for part in ("generator", "discriminator", "ema", "heads"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, atol=2e-5, rtol=1e-4, msg=f"{part}.{name}")


OPTIONS = {
    "GALIP's losses": {},
    "augmented": {
        "diff_augment": ("color", "translation", "cutout"),
        "caption_dropout": 0.3,
        "clip_shift": 2,
    },
    "warm-up and paired": {"warmup_steps": 2, "paired_steps": 4, "pose": True, "range_weight": 1.0},
    "perceptual": {
        "warmup_steps": 1,
        "paired_steps": 3,
        "perceptual_weight": 1.0,
        "projected_weight": 0.5,
        "perceptual_size": 16,
        "pose": True,
        "range_weight": 1.0,
    },
}
LONG = {"GALIP's losses", "warm-up and paired"}
"""Other tests here have two processes with GALIP's losses, and the last options have a warm-up, too."""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[pytest.mark.long] if name in LONG else [])
        for name, options in OPTIONS.items()
    ],
)
def test_two_processes_equal_one(config, saved, options):
    one, two = config("one", **options), config("two", **options)
    train(one, echo=lambda line: None)
    in_two_processes(two)
    agree(saved(one.out), saved(two.out))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_a_batch_in_parts_equals_a_batch(config, saved, options):
    whole, parts = config("whole", **options), config("parts", accumulate=4, **options)
    train(whole, echo=lambda line: None)
    train(parts, echo=lambda line: None)
    agree(saved(whole.out), saved(parts.out))


def test_processes_resumed_in_parts_equal_one_process(config, saved):
    one, two = config("one"), config("two", accumulate=2)
    train(one, echo=lambda line: None)
    in_two_processes(dataclasses.replace(two, steps=2))
    in_two_processes(two, resume=True)
    agree(saved(one.out), saved(two.out))


def test_two_processes_judge_and_log_as_one(config, logged, small_inception, monkeypatch):
    monkeypatch.setattr(inceptions, "find_weights", lambda path=None: small_inception)
    options = {"evaluate_every": 2, "evaluate_count": 11, "log_every": 1}
    one, two = config("one", **options), config("two", **options)
    train(one, echo=lambda line: None)
    in_two_processes(two, inception=small_inception)
    single, double = logged(one.out), logged(two.out)
    assert [line["step"] for line in single if "fid" in line] == [2, 4]
    for left, right in zip(single, double, strict=True):
        for unequal in ("time", "pictures_per_second"):
            assert left.pop(unequal, None) is None or right.pop(unequal) > 0
        assert right == pytest.approx(left, rel=1e-3, abs=1e-5)


def test_what_was_not_logged_yet_is_of_all_processes(config, logged):
    """The mean of a log line spans the save from which two processes go on."""
    one, two = (config(name, log_every=4, keep=2) for name in ("one", "two"))
    train(one, echo=lambda line: None)
    in_two_processes(two)
    (Path(two.out) / "states" / "0000004.pt").unlink()
    in_two_processes(two, resume=True)
    (left,), (right,) = logged(one.out), logged(two.out)
    for unequal in ("time", "pictures_per_second"):
        left.pop(unequal), right.pop(unequal)
    assert right == pytest.approx(left, rel=1e-3, abs=1e-5)
