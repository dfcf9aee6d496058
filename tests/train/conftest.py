"""Training runs of the preset `tiny`: seconds on one thread."""

import json
from pathlib import Path

import pytest
import torch

from galip.train.states import newest_state
from train.perceptual_fixtures import write_teacher


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """A perceptual teacher of 4, 6 and 8 channels with random weights."""
    return write_teacher(tmp_path_factory.mktemp("tiny_teacher") / "teacher.safetensors")


@pytest.fixture
def same_state():
    """Asserts that two saved states or checkpoints are equal bit for bit; the message names the place."""

    def compare(left, right, place="state"):
        assert type(left) is type(right), place
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype, place
            assert torch.equal(left, right), place
        elif isinstance(left, dict):
            assert list(left) == list(right), place
            for key in left:
                compare(left[key], right[key], f"{place}.{key}")
        elif isinstance(left, list | tuple):
            assert len(left) == len(right), place
            for index, pair in enumerate(zip(left, right, strict=True)):
                compare(*pair, f"{place}.{index}")
        else:
            assert left == right, place

    return compare


@pytest.fixture
def saved():
    """The newest state in a run's folder."""
    return lambda out: torch.load(newest_state(Path(out)), weights_only=True)


@pytest.fixture
def logged():
    """The lines of a run's log."""

    def read(out):
        with open(f"{out}/log.jsonl") as file:
            return [json.loads(line) for line in file]

    return read
