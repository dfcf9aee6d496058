"""`galip train-clip --teacher`: texts and a sentence encoder's vectors, learnt beside the captions."""

import dataclasses
import math
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused, UsageError
from runtime.error_checks import expect_error
from safetensors.torch import load_file, save_file

from galip.checkpoint import load_clip
from galip.clip import TextTower, clip_tokenizer
from galip.data.batches import encode_captions
from galip.early_checks import check_contrastive
from galip.train.config import ContrastiveConfig
from galip.train.contrastive import train_clip
from galip.train.sentence_teacher import TEMPERATURE, SentenceTeacher, read_teacher, write_teacher
from galip.train.stop_signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["a car", "an automobile", "a cat", "a kitty", "a bun", "a roll"]
"""Each means what its neighbour means."""


def quiet(line):
    pass


@pytest.fixture
def teacher(tmp_path):
    """A teacher file: each pair of `TEXTS` has one vector, at right angles to the others."""
    path = tmp_path / "teacher.safetensors"
    write_teacher(path, TEXTS, np.eye(5, dtype=np.float32)[[0, 0, 1, 1, 2, 2]] * 3)
    return path


@pytest.fixture
def config(tiny_data, tmp_path, teacher):
    def make(out, **changes):
        options = {"model": "tiny", "steps": 6, "batch_size": 10, "log_every": 1, "save_every": 100}
        options |= {"precision": "fp32", "device": "cpu", "seed": 7, "teacher": str(teacher), **changes}
        return ContrastiveConfig(data=str(tiny_data), out=str(tmp_path / out), **options)

    return make


def sentences(path):
    clip, config = load_clip(path)
    tokenizer = clip_tokenizer(config.text.merges, config.text.context_length)
    with torch.no_grad():
        return TextTower(clip)(torch.from_numpy(encode_captions(tokenizer, TEXTS, "")))


def test_a_file_keeps_texts_and_directions(teacher):
    texts, vectors = read_teacher(teacher)
    assert texts == TEXTS
    torch.testing.assert_close(vectors, torch.eye(5)[[0, 0, 1, 1, 2, 2]])


def test_texts_that_a_file_cannot_hold(tmp_path):
    for texts, rows in ((["a", "b"], 1), (["a\nb"], 1), (["a\n"], 1), ([""], 1)):
        with pytest.raises(UsageError):
            write_teacher(tmp_path / "x", texts, np.ones((rows, 2), np.float32))
    assert not (tmp_path / "x").exists()


def test_interrupted_and_resumed_equals_one_go(config, same_state, saved, logged):
    whole, parts = config("whole"), config("parts")
    train_clip(whole, echo=quiet)

    def interrupt(line):
        if line.startswith("step 3/"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingStopped):
        train_clip(parts, echo=interrupt)
    assert saved(parts.out)["step"] == 3
    train_clip(parts, resume=True, echo=quiet)
    same_state(saved(whole.out), saved(parts.out))
    same_state(*(dict(sorted(load_file(f"{run.out}/clip.safetensors").items())) for run in (whole, parts)))
    assert all(math.isfinite(line["teacher"]) for line in logged(whole.out))


def test_texts_that_mean_the_same_come_near_each_other(config):
    """No caption of the data has these words: without a teacher nothing brings the pairs together."""
    similarity = {}
    for name, changes in (("taught", {}), ("alone", {"teacher": ""})):
        path = train_clip(config(name, steps=40, lr=1e-2, teacher_weight=10.0, **changes), echo=quiet)
        units = F.normalize(sentences(path), dim=1)
        similarity[name] = units @ units.T
    pairs = [(0, 1), (2, 3), (4, 5)]
    others = [(0, 2), (0, 4), (2, 4), (1, 3), (1, 5), (3, 5)]
    gap = {
        name: np.mean([table[pair].item() for pair in pairs]) - np.mean([table[o].item() for o in others])
        for name, table in similarity.items()
    }
    assert gap["taught"] > gap["alone"] + 0.3


def test_the_loss_is_the_cross_entropy_of_cosines_after_the_map(teacher):
    taught = SentenceTeacher(teacher, clip_tokenizer(64, 16), 4)
    with torch.no_grad():
        taught.map.weight.copy_(torch.eye(5, 4))
        taught.map.bias.zero_()
    vectors = torch.eye(5)[[0, 1]]
    apart = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0]])
    swapped, alike = apart.flip(0), torch.ones(2, 4)
    assert taught.loss(alike, vectors).item() == pytest.approx(math.log(2))
    assert taught.loss(apart, vectors).item() == pytest.approx(0, abs=1e-6)
    assert taught.loss(swapped, vectors).item() == pytest.approx(1 / TEMPERATURE)


def test_every_text_is_sampled_with_its_vector(teacher):
    tokenizer = clip_tokenizer(64, 16)
    taught = SentenceTeacher(teacher, tokenizer, 4)
    tokens, vectors = taught.sample(100, torch.Generator().manual_seed(0))
    known = encode_captions(tokenizer, TEXTS, "")[:, : tokens.shape[1]]
    rows = [np.flatnonzero((known == row).all(axis=1)).item() for row in tokens.numpy()]
    assert set(rows) == set(range(len(TEXTS)))
    torch.testing.assert_close(vectors, torch.eye(5)[[row // 2 for row in rows]])


def test_a_run_goes_on_with_the_texts_it_began_with(config, tmp_path):
    run = config("run", steps=1)
    train_clip(run, echo=quiet)
    other = tmp_path / "other.safetensors"
    write_teacher(other, TEXTS[:4], np.ones((4, 5), np.float32))
    for teacher, texts in ((str(other), 4), ("", 0)):
        with expect_error(UsageError, 6, texts, "--teacher"):
            train_clip(dataclasses.replace(run, steps=2, teacher=teacher), resume=True, echo=quiet)


def lines(text):
    return torch.tensor(list(text), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"vectors": torch.ones(1, 2)}, "it holds vectors"),
        ({"generator.fc.weight": torch.ones(2)}, "generator.fc.weight"),
        ({"texts": lines(b"a"), "vectors": torch.ones(2)}, "no teacher file"),
        ({"texts": lines(b"a\nb"), "vectors": torch.ones(3, 2)}, "2 texts and 3 vectors"),
        ({"texts": lines(b"a"), "vectors": torch.full((1, 2), torch.nan)}, "not finite"),
        ({"texts": lines(b"a"), "vectors": torch.zeros(1, 2)}, "zero"),
        ({"texts": lines(b"\xff"), "vectors": torch.ones(1, 2)}, "UTF-8"),
        ({"texts": torch.ones(1), "vectors": torch.ones(1, 2)}, "bytes"),
        ({"texts": lines(b"a"), "vectors": torch.ones(1, 2, dtype=torch.int64)}, "numbers"),
    ],
)
def test_files_that_are_no_teacher(tmp_path, tensors, message):
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    with expect_error(FileRefused, "x.safetensors", message):
        read_teacher(path)


def test_no_file_at_all(config, tmp_path):
    run = config("run", teacher=str(tmp_path / "none.safetensors"))
    for refuse in (lambda: train_clip(run, echo=quiet), lambda: check_contrastive(run, resume=False)):
        with pytest.raises(FileRefused, match="none"):
            refuse()
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(FileRefused, match="text"):
        train_clip(config("run", teacher=str(tmp_path / "text.safetensors")), echo=quiet)
