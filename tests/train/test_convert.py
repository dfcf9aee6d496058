"""`galip convert` on stand-ins of the released files, of the preset `tiny`: same layout, same names."""

import collections
import dataclasses
import pickle
import random
from pathlib import Path

import pytest
import torch
from galip_runtime.errors import FileRefused, UsageError
from golden.official_weights import SHAPES
from safetensors.torch import save_file

from galip import clip as galip_clip
from galip import clip_tags
from galip.checkpoint import PARTS, load_galip, read_info
from galip.clip import ImageTower, TextTower, build_clip
from galip.convert import convert_released, read_state_dict
from galip.model import Galip
from galip.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = preset("tiny")

# Our names → released ones, written down apart from convert's own rules.
RELEASED = {
    "generator.bridge.fc.": "netG.fc_code.",
    "generator.bridge.fusion.": "netG.mapping.FBlocks.",
    "generator.bridge.out.": "netG.mapping.conv_fuse.",
    "generator.prompt.": "netG.mapping.fc_prompt.",
    "generator.clip_vit.resblocks.": "netG.mapping.CLIP_ViT.transformer.resblocks.",
    "generator.clip_vit.": "netG.mapping.CLIP_ViT.",
    "generator.concept.": "netG.mapping.conv.",
    "generator.blocks.": "netG.GBlocks.",
    "generator.to_rgb.": "netG.to_rgb.1.",
    "discriminator.mate.extraction.": "netD.DBlocks.",
    "discriminator.mate.main.": "netD.main.",
    "discriminator.assessor.convs.": "netC.joint_conv.",
}
INSIDE_GBLOCKS = {".conv1.": ".c1.", ".conv2.": ".c2.", ".shortcut.": ".c_sc."}
INSIDE = {
    ".df1.": ".fuse1.",
    ".df2.": ".fuse2.",
    **{
        f".{kind}.{layer}.": f".fc_{kind}.linear{layer // 2 + 1}."
        for kind in ("gamma", "beta")
        for layer in (0, 2)
    },
}
INSIDE_NETD = {".convs.": ".conv_r.", ".shortcut.": ".conv_s."}


def released_name(name):
    """("netG", "fc_code.weight") for generator.bridge.fc.weight."""
    prefix = next(prefix for prefix in RELEASED if name.startswith(prefix))
    module, _, rest = (RELEASED[prefix] + name.removeprefix(prefix)).partition(".")
    inside = {"netD": INSIDE_NETD, "netG": INSIDE, "netC": {}}[module]
    for ours, theirs in (inside | (INSIDE_GBLOCKS if rest.startswith("GBlocks.") else {})).items():
        rest = rest.replace(ours, theirs)
    return module, rest


def released_modules(model, visual):
    """{"netG": …, "netD": …, "netC": …} with what the released files have and nobody uses."""
    modules = collections.defaultdict(dict)
    for name, tensor in model.state_dict().items():
        if name.partition(".")[0] in ("generator", "discriminator"):
            module, released = released_name(name)
            modules[module][released] = tensor.clone()
    modules["netG"]["mapping.CLIP_ViT.conv1.weight"] = visual.conv1.weight.detach().clone()
    width = visual.conv1.weight.shape[0]
    for index in range(len(model.discriminator.mate.extraction)):
        modules["netD"][f"DBlocks.{index}.conv_s.weight"] = torch.randn(width, width, 1, 1)
        modules["netD"][f"DBlocks.{index}.conv_s.bias"] = torch.randn(width)
    return dict(modules)


@pytest.fixture(scope="module")
def clip(one_thread):
    torch.manual_seed(11)
    return build_clip(TINY.clip)


@pytest.fixture(scope="module")
def model(clip):
    model = Galip(TINY)
    model.use_towers(TextTower(clip), ImageTower(clip.visual, TINY.clip, "clip"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def modules(model, clip):
    return released_modules(model, clip.visual)


@pytest.fixture
def files(modules, clip, tmp_path):
    """Writes (galip.pth, clip.pt) and returns their paths; `galip`: another content of the first."""

    def write(galip=None, clip_tensors=None):
        torch.save({"model": modules} if galip is None else galip, tmp_path / "galip.pth")
        torch.save(clip.state_dict() if clip_tensors is None else clip_tensors, tmp_path / "clip.pt")
        return tmp_path / "galip.pth", tmp_path / "clip.pt"

    return write


def convert(files, **options):
    galip, clip = files
    out = galip.parent / "out" / "model.safetensors"
    convert_released(galip, out, config=TINY, **{"clip": str(clip), **options})
    return out


def refused(files, error=FileRefused, **options):
    with pytest.raises(error) as info:
        convert(files, **options)
    assert not (files[0].parent / "out").exists()
    return str(info.value)


def assert_equal(path, model):
    ours, expected = load_galip(path, needs=PARTS).state_dict(), model.state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_names_and_shapes_are_the_released_ones():
    """The stand-ins' layout is right: at full size it gives exactly the released names. Whoever renames a
    tensor of ours changes the checkpoint format: old checkpoints no longer load.
    """
    with torch.device("meta"):
        model, clip = Galip(preset("released")), build_clip(preset("released").clip)
    towers = {
        name.replace("image.", "visual.", 1).removeprefix("text."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(("image.", "text."))
    }
    modules = {**released_modules(model, clip.visual), "clip": towers | {"logit_scale": clip.logit_scale}}
    shapes = {
        module: {name: list(tensor.shape) for name, tensor in tensors.items()}
        for module, tensors in modules.items()
    }
    assert shapes == SHAPES


# What is read


def test_plain(files, model):
    out = convert(files())
    assert_equal(out, model)
    info = read_info(out)
    assert info.note["converted_from"] == "galip.pth"
    assert info.note["clip"] == "clip.pt"
    assert len(info.note["sha256"]) == 64


def test_saved_under_ddp_with_optimizers_and_epoch(files, modules, model):
    prefixed = {
        module: {f"module.{name}": tensor for name, tensor in tensors.items()}
        for module, tensors in modules.items()
    }
    state = torch.optim.Adam([torch.zeros(3, requires_grad=True)]).state_dict()
    galip = {"model": prefixed, "optimizers": {"optimizer_G": state, "optimizer_D": state}, "epoch": 740}
    assert_equal(convert(files(galip)), model)


def test_clip_in_half_precision(files, modules, clip, model):
    halves = {
        name: tensor.half() if ".CLIP_ViT." in name else tensor for name, tensor in modules["netG"].items()
    }
    out = convert(files({"model": {**modules, "netG": halves}}))
    loaded = load_galip(out, needs=PARTS).state_dict()
    for name, tensor in model.state_dict().items():
        if ".clip_vit." in name:
            assert torch.equal(loaded[name], tensor.half().float())
        else:
            assert torch.equal(loaded[name], tensor)
    # both in half precision, as OpenAI's file is: then they are equal again and stored once
    tensors = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    out = convert(files({"model": {**modules, "netG": halves}}, tensors))
    assert any(name.startswith("generator.clip_vit.") for name in read_info(out).aliases)


@pytest.mark.parametrize("layout", ["safetensors", "state_dict", "module.", "openai"])
def test_layouts_of_clips_file(files, clip, model, tmp_path, layout):
    tensors = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    galip, path = files()
    if layout == "safetensors":
        path = tmp_path / "clip.safetensors"
        save_file(tensors, path)
    elif layout == "state_dict":
        torch.save({"epoch": 3, "state_dict": tensors}, path)
    elif layout == "module.":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)
    else:
        sizes = {"input_resolution": 28, "context_length": 16, "vocab_size": 578}
        torch.save(tensors | {name: torch.tensor(size) for name, size in sizes.items()}, path)
    assert_equal(convert((galip, path)), model)


def test_without_text(files, model):
    out = convert(files(), clip=None, allow_missing_text=True)
    assert read_info(out).parts == ("generator", "discriminator")
    loaded = load_galip(out)
    assert loaded.text is None
    assert torch.equal(loaded.generator.to_rgb.weight, model.generator.to_rgb.weight)
    with pytest.raises(FileRefused, match=r"no text part.*--clip"):
        load_galip(out, needs=("text", "generator"))


def test_neither_clip_nor_leave_to_go_without(files):
    message = refused(files(), UsageError, clip=None)
    assert "--clip" in message
    assert "--allow-missing-text" in message


def test_clip_from_open_clip(files, clip, model, monkeypatch):
    """Nothing is downloaded here: what open_clip would give, and what it raises without a network."""
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        return clip

    monkeypatch.setattr(galip_clip.import_open_clip(), "create_model", create_model)
    monkeypatch.setattr(clip_tags.PretrainedClip, "check_reachable", lambda pretrained: None)
    monkeypatch.setattr(clip_tags.PretrainedClip, "local_file", lambda pretrained: None)
    assert_equal(convert(files(), clip="openai"), model)
    assert_equal(convert(files(), clip="ViT-B-32:laion2b_e16"), model)
    assert asked == [("ViT-B-32-quickgelu", "openai"), ("ViT-B-32", "laion2b_e16")]


# What is refused


def test_unknown_missing_and_misshapen_tensors_are_listed(files, modules):
    net = modules["netG"]
    del net["fc_code.bias"]
    net["fc_colour.weight"] = torch.zeros(4)
    net["to_rgb.1.weight"] = torch.zeros(3, 8, 1, 1)
    message = refused(files())
    assert "missing: generator.bridge.fc.bias (392,)" in message
    assert "unknown: fc_colour.weight (4,)" in message
    assert "misshapen: generator.to_rgb.weight is (3, 8, 1, 1), should be (3, 8, 3, 3)" in message


@pytest.mark.parametrize("module", ["netG", "netD", "netC"])
def test_a_missing_network(files, modules, module):
    del modules[module]
    assert "model.netG, model.netD and model.netC" in refused(files())


@pytest.mark.parametrize(
    "galip",
    [{}, {"epoch": 1}, {"model": 3}, {"model": {"netG": 1, "netD": 2, "netC": 3}}, [1, 2], torch.zeros(2)],
    ids=str,
)
def test_another_layout(files, galip):
    assert "galip.pth" in refused(files(galip))


def test_entries_that_are_no_tensors(files, modules):
    modules["netD"]["main.colour"] = "red"
    assert "main.colour" in refused(files())


def test_clip_of_another_size(files, tmp_path):
    wide = dataclasses.replace(TINY.clip.text, width=32)
    other = build_clip(dataclasses.replace(TINY.clip, text=wide))
    message = refused(files(clip_tensors=other.state_dict()))
    assert "with " + str(tmp_path / "clip.pt") in message
    assert "misshapen: text.text_projection is (32, 16), should be (16, 16)" in message


def test_another_clip(files):
    torch.manual_seed(12)
    message = refused(files(clip_tensors=build_clip(TINY.clip).state_dict()))
    assert "clip.pt" in message
    assert "class_embedding" in message


def test_nan(files, modules):
    modules["netG"]["to_rgb.1.bias"][0] = float("nan")
    assert "generator.to_rgb.bias" in refused(files())


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def old_pickle(data, path):
    path.write_bytes(pickle.dumps(data, protocol=2))


@pytest.mark.parametrize("place", ["file", "entry", "clip"])
@pytest.mark.parametrize("save", [torch.save, old_pickle])
def test_a_pickle_that_would_run_code(files, modules, tmp_path, place, save):
    target = tmp_path / "boom"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()  # it is a bomb
    target.unlink()
    galip, clip = files()
    save(
        {
            "file": Bomb(target),
            "entry": {"model": modules, "epoch": Bomb(target)},
            "clip": {"state_dict": Bomb(target)},
        }[place],
        clip if place == "clip" else galip,
    )
    message = refused((galip, clip))
    assert ("clip.pt" if place == "clip" else "galip.pth") in message
    assert "weights_only" not in message  # torch's advice on how to run it all the same
    assert not target.exists()


def test_torchscript_archive_of_something_else(files, tmp_path, recwarn):
    galip, path = files()
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert str(path) in refused((galip, path))
    assert str(path) in refused((path, path))
    assert not [warning for warning in recwarn if "jit.load" in str(warning.message)]


@pytest.mark.parametrize("zip_file", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_truncated(files, modules, zip_file, keep):
    galip, clip = files()
    torch.save({"model": modules}, galip, _use_new_zipfile_serialization=zip_file)
    data = galip.read_bytes()
    galip.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    assert str(galip) in refused((galip, clip))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>404</html>", bytes(500), b"\x80\x04\x95" + bytes(50)]
)
def test_no_weights_at_all(files, content):
    galip, clip = files()
    galip.write_bytes(content)
    assert str(galip) in refused((galip, clip))


def test_no_file(files, tmp_path):
    galip, clip = files()
    (tmp_path / "clip.safetensors").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "nothing.pth") in refused((tmp_path / "nothing.pth", clip))
    for wrong in (tmp_path / "empty", tmp_path / "nothing.pt", tmp_path / "clip.safetensors"):
        assert str(wrong) in refused((galip, wrong))


@pytest.mark.parametrize("zip_file", [True, False])
def test_flipped_bits(tmp_path, zip_file):
    """Whatever a flip makes the unpickler do, it is refused in words or read: nothing else escapes."""
    path = tmp_path / "flipped.pth"
    torch.save({"weight": torch.zeros(2), "epoch": 3}, path, _use_new_zipfile_serialization=zip_file)
    data = path.read_bytes()
    draw, refusals = random.Random(1), 0
    for _ in range(400):
        broken = bytearray(data)
        broken[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        try:
            read_state_dict(path)
        except FileRefused:
            refusals += 1
    assert refusals > 50
