"""`galip train-clip --whiten`: the same sentence vectors up to an affine map, and a head that fits them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from train.sentences import all_sentences

from galip.clip import ImageTower, TextTower, build_clip, clip_tokenizer, import_open_clip
from galip.presets import preset
from galip.train import whitening
from galip.train.config import ContrastiveConfig
from galip.train.contrastive import train_clip
from galip.train.in_memory import InMemoryPictures
from galip.train.whitening import SHRINKAGE, refit_image_head, turn_sentences, whiten_sentences

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tiny_data):
    return InMemoryPictures(tiny_data, "train", 28, clip_tokenizer(64, 16))


@pytest.fixture
def towers():
    torch.manual_seed(0)
    clip = build_clip(preset("tiny").clip)
    return TextTower(clip), ImageTower(clip.visual, preset("tiny").clip, "clip"), clip.logit_scale


def test_sentences_are_whitened_by_an_affine_map(towers, data):
    text, _, _ = towers
    before = all_sentences(text, data, seed=3)
    variance, directions = torch.linalg.eigh(torch.cov(before.T))
    whiten_sentences(text, data, seed=3)
    after = all_sentences(text, data, seed=3)
    assert after.mean(dim=0).abs().max() < 1e-3
    widths = (variance.clamp_min(0) + SHRINKAGE * variance.mean()).rsqrt()
    expected = (before - before.mean(dim=0)) @ (directions * widths) @ directions.T
    torch.testing.assert_close(after, expected, atol=2e-3, rtol=1e-3)
    spread = torch.linalg.eigvalsh(torch.cov(after.T)) / torch.linalg.eigvalsh(torch.cov(after.T)).max()
    was = variance / variance.max()
    wide = variance > 10 * SHRINKAGE * variance.mean()
    assert wide.sum() >= 3
    assert spread[wide].min() > 0.9
    assert was[wide].min() < 0.5


def test_sentences_are_turned_towards_those_before(towers, data):
    text, _, _ = towers
    before, begun = all_sentences(text, data, seed=3), copy.deepcopy(text)
    rotation, _ = torch.linalg.qr(torch.randn(before.shape[1], before.shape[1]))
    for whiten in (False, True):  # whitening alone turns vectors least, so both times the answer is known
        if whiten:
            whiten_sentences(text, data, seed=3)
        expected = all_sentences(text, data, seed=3)
        with torch.no_grad():
            text.text_projection.copy_(text.text_projection @ rotation)
        turn_sentences(text, begun, data, seed=3)
        torch.testing.assert_close(all_sentences(text, data, seed=3), expected, atol=1e-2, rtol=1e-3)


def test_the_head_is_fitted_and_nothing_else_changes(towers, data, monkeypatch):
    text, image, logit_scale = towers
    monkeypatch.setattr(whitening, "HEAD_STEPS", 150)
    loss = import_open_clip().ClipLoss()
    whiten_sentences(text, data, seed=3)

    @torch.no_grad()
    def contrast():
        pictures = whitening._features(image, data, 9, 0) @ image.proj
        return loss(
            F.normalize(pictures, dim=1), F.normalize(text(data.tokens(torch.arange(24), None)), dim=1), 10.0
        )

    before, was = contrast(), {name: value.clone() for name, value in image.state_dict().items()}
    frozen = {name: value.clone() for name, value in text.state_dict().items()}
    refit_image_head(image, text, logit_scale, data, 3, loss)
    assert contrast() < before - 0.2
    changed = {name for name, value in image.state_dict().items() if not torch.equal(value, was[name])}
    assert changed == {"proj", "ln_post.bias"}
    assert all(torch.equal(value, frozen[name]) for name, value in text.state_dict().items())


def test_a_run_with_whitening(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "HEAD_STEPS", 5)
    run = ContrastiveConfig(
        str(tiny_data), str(tmp_path / "run"), "tiny", steps=2, batch_size=10, whiten=True
    )
    said = []
    path = train_clip(run, echo=said.append)
    first = load_file(path)
    assert any("whitening" in line for line in said)
    train_clip(run, resume=True, echo=said.append)  # a finished run: whitened once, not twice
    assert all(torch.equal(value, first[name]) for name, value in load_file(path).items())
