"""`galip train-clip` on tiny pictures: exact resume, held-out accuracy, and stops that lose nothing."""

import dataclasses
import math
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from PIL import Image
from runtime.error_checks import expect_error
from safetensors.torch import load_file
from train.layout_fixtures import WRITERS
from train.sentences import all_sentences

from galip.checkpoint import load_clip, load_galip, read_info, save_galip
from galip.clip import ImageTower, TextTower, build_clip, clip_tokenizer
from galip.data.layouts import LAYOUTS
from galip.data.shards import read_samples
from galip.model import Galip
from galip.presets import preset
from galip.train import contrastive
from galip.train.config import ContrastiveConfig
from galip.train.contrastive import retrieval, train_clip
from galip.train.in_memory import InMemoryPictures
from galip.train.stop_signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(line):
    pass


@pytest.fixture
def config(tiny_data, tmp_path):
    """A run of six steps; patches are dropped in four of them; the third batch crosses two epochs."""

    def make(out="run", **changes):
        options = {"model": "tiny", "steps": 6, "batch_size": 10, "log_every": 1, "save_every": 100}
        options |= {"precision": "fp32", "device": "cpu", "seed": 7, **changes}
        return ContrastiveConfig(data=str(tiny_data), out=str(tmp_path / out), **options)

    return make


def interrupt_at(step, number=signal.SIGINT):
    def echo(line):
        if line.startswith(f"step {step}/"):
            os.kill(os.getpid(), number)

    return echo


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_interrupted_and_resumed_equals_one_go(config, same_state, saved, logged, precision):
    whole, parts = config("whole", precision=precision), config("parts", precision=precision)
    train_clip(whole, echo=quiet)
    with pytest.raises(TrainingStopped, match=r"\b3\b"):
        train_clip(parts, echo=interrupt_at(3))
    assert saved(parts.out)["step"] == 3
    assert not os.path.exists(f"{parts.out}/clip.safetensors")
    train_clip(parts, resume=True, echo=quiet)
    same_state(saved(whole.out), saved(parts.out))
    same_state(*(dict(sorted(load_file(f"{run.out}/clip.safetensors").items())) for run in (whole, parts)))
    assert [line["step"] for line in logged(parts.out)] == [1, 2, 3, 4, 5, 6]


def test_begun_with_other_towers(config):
    first = train_clip(config("first", lr=1e-2), echo=quiet)
    second = train_clip(config("second", steps=1, lr=1e-9, weight_decay=0.0, init=str(first)), echo=quiet)
    before, after = load_file(first), load_file(second)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_locked_image_tower_keeps_all_except_its_head(config, tiny_checkpoint, whiten):
    path = train_clip(config(steps=2, init=str(tiny_checkpoint), lock_image=True, whiten=whiten), echo=quiet)
    model, after = load_galip(tiny_checkpoint, needs=("text", "image")), load_file(path)
    image = model.image.state_dict()
    changed = {name for name, tensor in image.items() if not torch.equal(tensor, after[f"visual.{name}"])}
    assert changed == ({"proj", "ln_post.bias"} if whiten else set())
    assert not torch.equal(model.text.token_embedding.weight, after["token_embedding.weight"])


def test_what_a_resumed_run_keeps_of_the_towers_it_began_with(config, same_state, saved):
    first = train_clip(config("first"), echo=quiet)
    options = {"init": str(first), "lock_image": True}
    whole = config("whole", whiten=True, **options)
    parts = config("parts", **options)  # whitening is asked for later
    train_clip(whole, echo=quiet)
    with pytest.raises(TrainingStopped):
        train_clip(parts, echo=interrupt_at(3))
    with expect_error(UsageError, "--lock-image"):
        train_clip(dataclasses.replace(parts, lock_image=False), resume=True, echo=quiet)
    train_clip(config("first", steps=8, lr=1e-2), resume=True, echo=quiet)  # its file is another now
    train_clip(dataclasses.replace(parts, whiten=True), resume=True, echo=quiet)
    same_state(saved(whole.out), saved(parts.out))
    same_state(*(dict(sorted(load_file(f"{run.out}/clip.safetensors").items())) for run in (whole, parts)))


def test_whitened_sentence_vectors_are_turned_to_those_it_began_with(config, tiny_data):
    first = train_clip(config("first"), echo=quiet)
    path = train_clip(
        config("whitened", steps=1, lr=1e-9, weight_decay=0.0, init=str(first), whiten=True), echo=quiet
    )
    data = InMemoryPictures(tiny_data, "train", 28, clip_tokenizer(64, 16))
    begun, turned = (all_sentences(TextTower(load_clip(file)[0]), data, seed=7) for file in (first, path))
    products = begun.T @ turned  # symmetric with eigenvalues of 0 or more: no rotation brings them nearer
    tolerance = 1e-3 * float(products.abs().max())
    torch.testing.assert_close(products, products.T, atol=tolerance, rtol=0)
    assert torch.linalg.eigvalsh((products + products.T) / 2).min() > -tolerance


def test_towers_that_it_cannot_begin_with(config, tmp_path):
    with expect_error(UsageError, "default", "preset"):
        train_clip(config(init="default"), echo=quiet)
    tiny = preset("tiny")
    model = Galip(
        dataclasses.replace(
            tiny, discriminator=dataclasses.replace(tiny.discriminator, pixel_range="released")
        )
    )
    save_galip(tmp_path / "released.safetensors", model, dtype=torch.float32)
    with expect_error(UsageError, "released pixel range", "CLIP"):
        train_clip(config(init=str(tmp_path / "released.safetensors")), echo=quiet)


def test_what_it_writes(config, logged, tiny_data):
    echoed = []
    run = config(steps=2)
    path = train_clip(run, echo=echoed.append)
    clip, towers = load_clip(path)
    assert towers == preset("tiny").clip
    note = read_info(path).note
    assert note["train_clip"]["batch_size"] == 10
    assert note["held_out"]["pictures"] == 9
    assert any("held out: 9 pictures" in line for line in echoed)
    assert all(math.isfinite(value) for line in logged(run.out) for value in line.values())
    data = InMemoryPictures(tiny_data, "val", 28, clip_tokenizer(64, 16))
    image, text = ImageTower(clip.visual, towers, "clip"), TextTower(clip)
    assert retrieval(image, text, data) == note["held_out"]


def test_it_learns(config, logged):
    run = config(steps=40, batch_size=24, lr=1e-2, patch_dropout=0.0)
    train_clip(run, echo=quiet)
    losses = [line["loss"] for line in logged(run.out)]
    assert losses[-1] < losses[0] - 0.5


@torch.no_grad()
def test_retrieval_counts_hits(tiny_data):
    """A stand-in for the towers that knows the answers for three of four pictures."""
    data = InMemoryPictures(tiny_data, "val", 28, clip_tokenizer(64, 16))
    data.pictures = data.pictures[:4]
    data.captions = data.captions[:4]
    data.pictures[:] = torch.arange(4).view(4, 1, 1, 1) * 10
    numbers = {}

    def image(pictures, layers):
        index = ((pictures[:, 0, 0, 0] + 1) * 12.75).round().long()
        return [], torch.eye(4)[index]

    def text(tokens):
        order = torch.randperm(4, generator=contrastive.generator_for(0, "retrieval", 0))
        numbers["n"] = len(tokens)
        right = torch.eye(4)[order]
        return torch.where(order[:, None] == 2, torch.eye(4)[3], right)  # picture 2's caption says 3

    accuracy = retrieval(image, text, data)
    assert numbers["n"] == 4
    assert accuracy["picture_of_caption"] == 0.75
    assert accuracy["pictures"] == accuracy["of"] == 4


def test_without_held_out_pictures(config, tiny_data, tmp_path):
    """People's own pictures may have no validation split: training isn't lost for that."""
    data = tmp_path / "data"
    data.mkdir()
    for path in tiny_data.glob("train-*.tar"):
        shutil.copy(path, data)
    echoed = []
    path = train_clip(dataclasses.replace(config(steps=1), data=str(data)), echo=echoed.append)
    assert read_info(path).note["held_out"] == {}
    assert any("no pictures are held out" in line for line in echoed)


@pytest.mark.parametrize("crop", ["exact", "random"])
@pytest.mark.parametrize("layout", [name for name in WRITERS if name.partition("_")[0] in LAYOUTS])
def test_every_layout_trains(config, tmp_path, logged, layout, crop):
    """Pictures of any size are brought to the towers', as `galip train` does; val is held out if there is."""
    data = WRITERS[layout](tmp_path / layout)
    echoed = []
    run = dataclasses.replace(config(steps=2, batch_size=2, crop=crop, max_broken=0.9), data=str(data))
    note = read_info(train_clip(run, echo=echoed.append)).note
    assert any(layout.partition("_")[0] in line for line in echoed if line.startswith("data: "))
    assert all(math.isfinite(value) for line in logged(run.out) for value in line.values())
    held_out = {"coco": 3, "folder": 1}.get(layout)
    assert note["held_out"].get("pictures") == held_out
    assert read_info(Path(run.out, "clip.safetensors")).note["train_clip"]["crop"] == crop


def test_the_layout_that_is_asked_for(config, tmp_path):
    data = WRITERS["folder"](tmp_path / "data")
    run = dataclasses.replace(config(steps=1, batch_size=2), data=str(data))
    train_clip(dataclasses.replace(run, layout="folder"), echo=quiet)
    with pytest.raises(UsageError, match="coco"):
        train_clip(dataclasses.replace(run, layout="coco", out=str(tmp_path / "b")), echo=quiet)


def test_shards_and_a_folder_of_the_same_pictures_give_the_same_towers(config, tiny_data, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for sample in read_samples(tiny_data):
        Image.fromarray(sample.picture).save(folder / f"{sample.key}.png")
        (folder / f"{sample.key}.txt").write_text("\n".join(sample.captions))
    shards = config("shards")
    train_clip(shards, echo=quiet)
    other = dataclasses.replace(config("other"), data=str(folder))
    train_clip(other, echo=quiet)
    tensors = [load_file(f"{run.out}/clip.safetensors") for run in (shards, other)]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_broken_pictures_are_left_out_up_to_a_share(config, tmp_path):
    """One of twenty: left out and told; above the share the run stops before it begins."""
    for number in range(20):
        Image.new("RGB", (30, 30), (number * 10, 0, 0)).save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"picture {number}")
    (tmp_path / "07.png").write_bytes(b"no picture")
    run = dataclasses.replace(config("run", steps=1, batch_size=19, max_broken=0.05), data=str(tmp_path))
    echoed = []
    train_clip(run, echo=echoed.append)
    assert any("19 pictures" in line and "1 broken" in line for line in echoed)
    with expect_error(QualityGateFailed, "20", "07.png", "--max-broken"):
        train_clip(dataclasses.replace(run, max_broken=0.04, out=str(tmp_path / "other")), echo=quiet)
    assert not (tmp_path / "other").exists()
    for number in range(20):
        (tmp_path / f"{number:02}.png").write_bytes(b"no picture")
    with pytest.raises(QualityGateFailed, match=r"00\.png"):
        train_clip(dataclasses.replace(run, max_broken=1.0, out=str(tmp_path / "other")), echo=quiet)


def test_a_run_goes_on_with_the_pictures_it_began_with(config, tmp_path):
    data = WRITERS["folder_table"](tmp_path / "data")
    run = dataclasses.replace(config(steps=1, batch_size=2), data=str(data))
    train_clip(run, echo=quiet)
    Image.new("RGB", (30, 30)).save(data / "new.png")
    (data / "new.txt").write_text("a new one")
    with expect_error(UsageError, 3, 4):
        train_clip(dataclasses.replace(run, steps=2), resume=True, echo=quiet)


def test_broken_held_out_pictures_are_told_before_training(config, tiny_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    shard = data / "val-00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    run = dataclasses.replace(config(), data=str(data))
    with pytest.raises(FileRefused, match="val-00000"):
        train_clip(run, echo=quiet)
    assert not os.path.exists(run.out)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_and_keeps_the_last_good_state(config, monkeypatch, saved, what):
    calls = []

    class Poisoned(contrastive.import_open_clip().ClipLoss):
        def forward(self, *inputs):
            calls.append(None)
            value = super().forward(*inputs)
            if len(calls) != 4:
                return value
            return value * float("nan") if what == "loss" else value + (value - value.detach()).sqrt()

    run = config(save_every=2, log_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(contrastive.import_open_clip(), "ClipLoss", Poisoned)
        with pytest.raises(QualityGateFailed, match=re.escape(run.out)):
            train_clip(run, echo=quiet)
    assert saved(run.out)["step"] == 2
    train_clip(run, resume=True, echo=quiet)


def test_mistakes(config, tmp_path, tiny_data):
    run = config(steps=1)
    train_clip(run, echo=quiet)
    with pytest.raises(UsageError, match=re.escape(run.out)):
        train_clip(run, echo=quiet)
    with pytest.raises(UsageError, match=r"\b25\b"):
        train_clip(config("other", batch_size=25), echo=quiet)
    with pytest.raises(UsageError, match="nothing"):
        train_clip(dataclasses.replace(config("other"), data=str(tmp_path / "nothing")), echo=quiet)
    assert not os.path.exists(config("other").out)
    torch.save({"step": 1, "generator": {}}, f"{run.out}/states/0000001.pt")  # of galip train
    with pytest.raises(UsageError, match=r"0000001\.pt"):
        train_clip(run, resume=True, echo=quiet)


def test_patches_are_dropped_by_the_share_asked_for():
    config = preset("tiny").clip
    torch.manual_seed(0)
    tower = ImageTower(build_clip(config).visual, config, "clip")
    pictures = torch.rand(3, 3, 28, 28)
    rng = contrastive.generator_for(0, "clip", 0)
    lengths = []
    tower.ln_pre.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[1]))
    with torch.no_grad():
        half = contrastive._embed_pictures(tower, pictures, 0.5, rng)
        most = contrastive._embed_pictures(tower, pictures, 0.99, rng)
        none = contrastive._embed_pictures(tower, pictures, 0.0, rng)
        nearly = contrastive._embed_pictures(tower, pictures, 1e-9, rng)  # all patches, in another order
    assert lengths == [1 + 24, 1, 1 + 49, 1 + 49]
    assert half.shape == most.shape == none.shape
    torch.testing.assert_close(nearly, none, atol=1e-5, rtol=1e-4)
