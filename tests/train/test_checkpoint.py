"""Our checkpoints: bit for bit there and back, and whatever is wrong with a file is refused in words."""

import dataclasses
import json
import os
import random
import re
import struct

import pytest
import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from safetensors.torch import load_file, save_file

from galip import checkpoint
from galip.checkpoint import PARTS, load_clip, load_galip, load_weights, read_info, save_clip, save_galip
from galip.clip import build_clip
from galip.model import Galip
from galip.presets import preset
from galip.tensors import read_header

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = preset("tiny")


@pytest.fixture(scope="module")
def model(one_thread):
    torch.manual_seed(5)
    model = Galip(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture
def path(model, tmp_path):
    save_galip(tmp_path / "model.safetensors", model, note={"step": 3})
    return tmp_path / "model.safetensors"


def rewrite(path, tensors=None, **metadata):
    """The file at `path` with other tensors or metadata; metadata None: that entry left out."""
    old = read_header(path).metadata
    changed = {name: value for name, value in {**old, **metadata}.items() if value is not None}
    save_file(load_file(path) if tensors is None else tensors, path, changed)


def refused(path, load=load_galip):
    with pytest.raises(FileRefused) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message
    return message


# There and back


def test_whole_model_bit_for_bit(model, path):
    loaded = load_galip(path, needs=PARTS)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.config == TINY
    assert not loaded.training
    info = read_info(path)
    assert (info.kind, info.parts, info.note, info.dtypes) == ("galip", PARTS, {"step": 3}, ("F32",))
    assert info.config == TINY
    assert set(info.shapes) | set(info.aliases) == set(ours)


def test_half_precision_is_close_and_half_the_size(model, path, tmp_path):
    half = tmp_path / "half.safetensors"
    save_galip(half, model, dtype=torch.float16)
    loaded = load_galip(half)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype is torch.float32
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    assert read_info(half).dtypes == ("F16",)
    header = [struct.unpack("<Q", file.read_bytes()[:8])[0] + 8 for file in (path, half)]
    assert half.stat().st_size - header[1] == (path.stat().st_size - header[0]) / 2


def test_the_generators_copy_of_clip_is_stored_once(model, path, tmp_path):
    copies = {name for name in model.state_dict() if name.startswith("generator.clip_vit.")}
    assert read_info(path).aliases.keys() == copies
    assert not copies & load_file(path).keys()
    numbers = sum(model.state_dict()[name].numel() for name in copies)
    # with another tower in the generator, nothing equals anything and all is stored
    other = load_galip(path)
    with torch.no_grad():
        for parameter in other.generator.clip_vit.parameters():
            parameter.add_(1)
    save_galip(tmp_path / "other.safetensors", other)
    assert read_info(tmp_path / "other.safetensors").aliases == {}
    assert (tmp_path / "other.safetensors").stat().st_size > path.stat().st_size + 4 * numbers * 0.99
    again = load_galip(tmp_path / "other.safetensors").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("parts", [("generator",), ("text", "generator"), ("image", "discriminator")])
def test_parts_a_file_lacks_are_none(model, tmp_path, parts):
    path = tmp_path / "parts.safetensors"
    save_galip(path, model, parts=parts)
    loaded = load_galip(path, needs=())
    assert [part for part in PARTS if getattr(loaded, part) is not None] == [p for p in PARTS if p in parts]
    for part in parts:
        torch.testing.assert_close(getattr(loaded, part).state_dict(), getattr(model, part).state_dict())
    lacking = [part for part in PARTS if part not in parts]
    message = refused(path, lambda file: load_galip(file, needs=PARTS))
    assert all(part in message for part in lacking)


@pytest.mark.parametrize("parts", [("decoder",), ("text", "training"), ("config",)])
def test_unknown_parts_are_not_saved(model, tmp_path, parts):
    with pytest.raises(UsageError, match="|".join(parts)):
        save_galip(tmp_path / "new.safetensors", model, parts=parts)
    assert not list(tmp_path.iterdir())


def test_a_part_the_model_lacks_is_not_saved(path, tmp_path):
    loaded = load_galip(path)
    loaded.text = None
    with pytest.raises(UsageError, match="'text'"):
        save_galip(tmp_path / "new.safetensors", loaded)


def test_clip_bit_for_bit(tmp_path):
    clip, path = build_clip(TINY.clip), tmp_path / "clip.safetensors"
    save_clip(path, clip, TINY.clip, note={"held_out": 0.5})
    loaded, config = load_clip(path)
    assert config == TINY.clip
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in clip.state_dict().items())
    info = read_info(path)
    assert (info.kind, info.parts, info.note) == ("clip", ("text", "image"), {"held_out": 0.5})
    assert "galip train" in refused(path)


def test_ablations_come_back(tmp_path):
    config = dataclasses.replace(TINY, generator=dataclasses.replace(TINY.generator, use_clip=False))
    save_galip(tmp_path / "plain.safetensors", Galip(config))
    assert load_galip(tmp_path / "plain.safetensors").config == config


# Refused


def test_a_galip_checkpoint_is_no_clip(path):
    assert "galip train-clip" in refused(path, load_clip)


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "nothing.safetensors")
    refused(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1, -1000])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    refused(path)


def test_something_else_entirely(tmp_path):
    (tmp_path / "galip.pth").write_bytes(b"PK\x03\x04" + bytes(1000))
    assert "galip convert" in refused(tmp_path / "galip.pth")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    refused(tmp_path / "page.safetensors")


def test_foreign_safetensors(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    refused(tmp_path / "foreign.safetensors")


def test_another_format_version(path):
    rewrite(path, format_version="2")
    message = refused(path)
    assert re.search(r"\b2\b.*\b1\b", message)


DAMAGE = {
    "no config": {"config": None},
    "no parts": {"parts": None},
    "no aliases": {"aliases": None},
    "no kind": {"kind": None},
    "unknown kind": {"kind": "galop"},
    "config no JSON": {"config": "{"},
    "config too deep": {"config": "[" * 100_000},
    "config a list": {"config": "[]"},
    "config of a later version": {"config": json.dumps({**TINY.to_dict(), "depth": 3})},
    "parts a number": {"parts": "3"},
    "parts a word": {"parts": '"text"'},
    "parts numbers": {"parts": "[1]"},
    "unknown part": {"parts": '["generator", "decoder"]'},
    "aliases a list": {"aliases": "[]"},
    "aliases of numbers": {"aliases": '{"generator.bridge.fc.bias": 3}'},
    "note a list": {"note": "[]"},
    "note NaN": {"note": '{"loss": NaN}'},
}


@pytest.mark.parametrize("metadata", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_metadata(path, metadata):
    rewrite(path, **metadata)
    refused(path)


def test_impossible_config(path):
    config = TINY.to_dict()
    config["clip"]["image"]["patch_size"] = 0
    rewrite(path, config=json.dumps(config))
    assert "patch_size is 0" in refused(path)


def test_dangling_aliases(path):
    tensors = load_file(path)
    del tensors["image.class_embedding"]
    rewrite(path, tensors)
    assert "image.class_embedding" in refused(path)


def test_missing_unknown_and_misshapen_tensors_are_all_listed(path):
    tensors = load_file(path)
    del tensors["generator.to_rgb.bias"]
    tensors["generator.to_rgb.colour"] = torch.zeros(4)
    tensors["generator.to_rgb.weight"] = torch.zeros(3, 8, 1, 1)
    rewrite(path, tensors)
    message = refused(path)
    assert "missing: generator.to_rgb.bias (3,)" in message
    assert "unknown: generator.to_rgb.colour (4,)" in message
    assert "misshapen: generator.to_rgb.weight is (3, 8, 1, 1), should be (3, 8, 3, 3)" in message


def test_a_long_list_is_cut():
    with pytest.raises(FileRefused, match="4 more") as error:
        load_weights(torch.nn.Linear(1, 1), {f"w{i}": torch.zeros(1) for i in range(22)}, "the file")
    assert len(str(error.value).splitlines()) == 22  # a heading, twenty and the rest


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(path, bad):
    tensors = load_file(path)
    tensors["generator.to_rgb.bias"][1] = bad
    rewrite(path, tensors)
    assert "generator.to_rgb.bias" in refused(path)


def test_flipped_bits_in_the_header(path, tmp_path):
    """Whatever a flip does, the file is refused in words or still fits the model: nothing else escapes."""
    data = path.read_bytes()
    header = struct.unpack("<Q", data[:8])[0] + 8
    draw = random.Random(0)
    places = [*range(8), *(draw.randrange(8, header) for _ in range(120))]
    refusals = 0
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        try:
            load_galip(path, needs=())
        except FileRefused:
            refusals += 1
    assert refusals > 90


# Written whole or not at all


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["save_file", "replace"])
def test_a_failing_write_leaves_nothing(model, path, monkeypatch, error, step):
    before = path.read_bytes()

    def fail(tensors, file, *_):
        if step == "save_file":
            with open(file, "wb") as partial:
                partial.write(b"half")
        raise error

    monkeypatch.setattr(checkpoint if step == "save_file" else os, step, fail)
    for target in (path, path.parent / "new" / "model.safetensors"):
        with pytest.raises(UsageError if isinstance(error, OSError) else KeyboardInterrupt):
            save_galip(target, model)
    assert path.read_bytes() == before
    assert [file for file in path.parent.rglob("*") if file.is_file()] == [path]


def test_places_that_cannot_be_written(model, path, tmp_path):
    (tmp_path / "folder").mkdir()
    for target in (path / "model.safetensors", tmp_path / "folder"):
        with pytest.raises(UsageError, match=re.escape(str(target))):
            save_galip(target, model)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", path.name]


@pytest.mark.usefixtures("permissions_count")
def test_a_folder_without_leave_to_write(model, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        save_galip(tmp_path / "model.safetensors", model)


def test_numbers_too_big_for_half_precision_are_not_saved(path, tmp_path):
    big = load_galip(path)
    with torch.no_grad():
        big.generator.to_rgb.bias[0] = 1e6
    save_galip(tmp_path / "new.safetensors", big)
    (tmp_path / "new.safetensors").unlink()
    with pytest.raises(QualityGateFailed, match=r"generator\.to_rgb\.bias"):
        save_galip(tmp_path / "new.safetensors", big, dtype=torch.float16)
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]
