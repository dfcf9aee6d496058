"""The judge that finds captions by Inception and a sentence encoder, with stand-ins for both."""

import io

import numpy as np
import pytest
from galip_runtime.errors import UsageError
from icons import independent_judge
from icons.independent_judge import RIDGES, Judge, choose_ridge, cross_validated, judge_models
from PIL import Image

from galip.data.shards import write_shards

THINGS, STYLES, WIDTH, FEATURES = 120, 4, 16, 40


@pytest.fixture(scope="module")
def world():
    """Things with vectors; features of each thing's pictures say its vector, their style, and some noise."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(THINGS, WIDTH)).astype(np.float32) + 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    drawn = rng.normal(size=(WIDTH, FEATURES))
    styles = rng.normal(size=(STYLES, FEATURES))
    things, style = (grid.ravel() for grid in np.mgrid[:THINGS, :STYLES])
    features = vectors[things] @ drawn * 5 + styles[style] + 0.1 * rng.normal(size=(len(things), FEATURES))
    return features.astype(np.float32), vectors[things], [f"thing {index}" for index in things]


def test_it_finds_the_captions_of_pictures_and_things_it_was_not_fitted_to(world):
    ridge, on_pictures, on_things = choose_ridge(*world)
    assert ridge in RIDGES
    assert on_pictures > 0.95
    assert on_things > 0.8


def test_it_finds_nothing_in_features_that_say_nothing(world):
    features, vectors, names = world
    noise = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    folds = np.arange(len(names)) % STYLES  # each fold has a picture of every thing
    assert cross_validated(noise, vectors, names, folds, 1_000.0) < 0.05
    assert cross_validated(features, vectors, names, folds, 1_000.0) > 0.95


def test_what_all_captions_share_does_not_count(world):
    features, vectors, names = world
    judge = Judge.fit(features, vectors, 100.0)
    moved = Judge.fit(features, vectors + 3, 100.0)
    np.testing.assert_allclose(judge.read(vectors), moved.read(vectors + 3), atol=1e-4)
    assert judge.accuracy(features, vectors, names) > 0.95
    np.testing.assert_allclose(np.linalg.norm(judge.see(features), axis=1), 1, atol=1e-5)


def test_fewer_than_a_hundred_captions(world):
    features, vectors, _ = world
    with pytest.raises(UsageError, match="100"):
        choose_ridge(features, vectors, ["a thing"] * len(features))


class GreyModel:
    """Draws thing 7 as a grey of 7, as the data does; or nothing but black."""

    def __init__(self, constant=False):
        self.constant = constant

    def encode_text(self, captions):
        return np.array([[float(caption.split()[2].rstrip(","))] for caption in captions])

    def noise(self, seeds):
        return np.zeros((len(seeds), 1))

    def decode(self, noise, sentence):
        grey = sentence * (not self.constant) / 127.5 - 1
        return np.broadcast_to(grey[:, :, None, None], (len(grey), 3, 8, 8)).astype(np.float32)


class Greys:
    """Stands in for Inception: one of 128 features is on, that of the picture's grey."""

    width = 128

    def __call__(self, pictures):
        if pictures.is_floating_point():
            pictures = ((pictures + 1) * 127.5).round()
        return np.eye(128, dtype=np.float32)[pictures[:, 0, 0, 0].long().numpy()]


def test_models_are_judged_by_the_captions_they_drew(tmp_path, monkeypatch):
    samples = []
    for thing in range(THINGS):
        for style in ("flat style", "3D style"):
            png = io.BytesIO()
            Image.new("RGB", (8, 8), (thing,) * 3).save(png, "PNG")
            caption = f"a thing {thing}, {style}"
            meta = {"captions": [caption], "style": style, "group": "food" if thing else "flags"}
            samples.append((f"{thing}-{style[0]}", png.getvalue(), caption, meta))
    write_shards(tmp_path, "train", samples)

    def encoder(texts):
        return np.eye(THINGS, dtype=np.float32)[[int(text.removeprefix("a thing ")) for text in texts]]

    monkeypatch.setattr(independent_judge, "Inception", Greys)
    monkeypatch.setattr(
        independent_judge, "open_model", lambda config, device: GreyModel("constant" in config.subject)
    )
    said = []
    report = judge_models(
        [tmp_path / "good", tmp_path / "constant"],
        tmp_path,
        encoder,
        exclude=["group=flags"],
        count=300,
        echo=said.append,
    )
    assert report["judge"]["held_out_pictures"] > 0.6  # both pictures of a thing may be held out
    assert report[str(tmp_path / "good")]["right_among_100"] == 1
    assert report[str(tmp_path / "constant")]["right_among_100"] < 0.05
    assert "238 pictures of 119 things" in said[0]
