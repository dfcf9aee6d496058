"""CLIP's towers in the forms in which people have them: one random tower of the preset `tiny`."""

import contextlib
import io
import pickle
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile

import huggingface_hub
import pytest
import torch
from galip_runtime.errors import FileRefused, UsageError
from safetensors.torch import save_file

from galip.clip import build_clip
from galip.clip_files import clip_state_dict
from galip.clip_tags import PretrainedClip, find_pretrained
from galip.presets import preset
from galip.towers import load_towers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
]
TINY = preset("tiny").clip


class Tree(torch.nn.Module):
    """Modules with the parameters of a state dict, as TorchScript stores them."""

    def __init__(self, tensors):
        super().__init__()
        self.attn_mask = torch.zeros(2, 2)  # OpenAI's modules have such tensors that are no weights
        self.heads = 2
        for name in sorted({name.partition(".")[0] for name in tensors if "." in name}):
            part = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
            self.add_module(name, Tree({key.removeprefix(f"{name}."): value for key, value in part.items()}))
        for name, tensor in tensors.items():
            if "." not in name:
                self.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def tensors(one_thread):
    """A tower's tensors under OpenAI's names. Matrices have values that fp16 holds, as OpenAI's file has."""
    torch.manual_seed(5)
    state = build_clip(TINY).state_dict()
    return {name: torch.randn_like(tensor).half().float().contiguous() for name, tensor in state.items()}


def transformers_names(tensors):
    """The tensors as transformers stores them; written down apart from the reader's own rules."""
    heads = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "text_projection": "text_projection.weight",
        "logit_scale": "logit_scale",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
        "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "visual.ln_post.weight": "vision_model.post_layernorm.weight",
        "visual.ln_post.bias": "vision_model.post_layernorm.bias",
        "visual.proj": "visual_projection.weight",
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    result = {
        "text_model.embeddings.position_ids": torch.arange(TINY.text.context_length)[None],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    for name, tensor in tensors.items():
        if name in heads:
            result[heads[name]] = (
                tensor.t().contiguous() if name in ("text_projection", "visual.proj") else tensor
            )
            continue
        tower, _, rest = name.partition("transformer.resblocks.")
        number, _, rest = rest.partition(".")
        block = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}."
        part, _, kind = rest.rpartition(".")
        if rest.startswith("attn.in_proj_"):
            for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                result[f"{block}self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}"] = piece.clone()
        elif part == "attn.out_proj":
            result[f"{block}self_attn.out_proj.{kind}"] = tensor
        else:
            result[f"{block}{parts[part]}.{kind}"] = tensor
    return result


def write(layout, tensors, folder, name="clip"):
    """Write the tensors in `layout` to a file in `folder` and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    if layout == "openai":
        tree = Tree({name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in tensors.items()})
        torch.jit.script(tree).save(path)
    elif layout == "openai state dict":
        sizes = {"input_resolution": 28, "context_length": 16, "vocab_size": 578}
        torch.save(tensors | {name: torch.tensor(size) for name, size in sizes.items()}, path)
    elif layout == "open_clip":
        torch.save(tensors, path)
    elif layout == "open_clip safetensors":
        save_file(tensors, path)
    elif layout == "open_clip training":
        wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
        torch.save({"epoch": 3, "name": "x", "state_dict": wrapped, "optimizer": {}}, path)
    elif layout == "open_clip text module":
        torch.save({name if "visual" in name else f"text.{name}": t for name, t in tensors.items()}, path)
    elif layout == "transformers pickle":
        torch.save(transformers_names(tensors), path)
    elif layout == "transformers old pickle":
        torch.save(transformers_names(tensors), path, _use_new_zipfile_serialization=False)
    else:
        save_file(transformers_names(tensors), path, {"format": "pt"})
    return path


LAYOUTS = (
    "openai",
    "openai state dict",
    "open_clip",
    "open_clip safetensors",
    "open_clip training",
    "open_clip text module",
    "transformers pickle",
    "transformers old pickle",
    "transformers safetensors",
)


def assert_towers(source, tensors):
    towers = load_towers(str(source), TINY)
    loaded = {f"visual.{name}": tensor for name, tensor in towers.image.state_dict().items()}
    loaded |= towers.text.state_dict()
    assert loaded.keys() == tensors.keys() - {"logit_scale"}
    assert all(torch.equal(loaded[name], tensors[name]) for name in loaded)


@pytest.mark.parametrize("name", ["clip", "ViT-B-32.pt", "pytorch_model.bin", "model.safetensors", "x.pth"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_tower_in_every_layout_under_any_name(tensors, tmp_path, layout, name):
    assert_towers(write(layout, tensors, tmp_path, name), tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_that_holds_one(tensors, tmp_path, layout):
    write(layout, tensors, tmp_path / "clip", "weights.bin")
    (tmp_path / "clip" / "config.json").write_text("{}")
    (tmp_path / "clip" / "README.md").write_text("A CLIP")
    (tmp_path / "clip" / ".hidden.pt").write_bytes(b"PK\x03\x04")
    torch.save({"learning_rate": 1.0}, tmp_path / "clip" / "a_training_args.bin")
    save_file({"other": torch.ones(2)}, tmp_path / "clip" / "a.safetensors")
    assert_towers(tmp_path / "clip", tensors)


def test_a_folder_with_the_same_towers_twice_and_with_others(tensors, tmp_path):
    write("transformers safetensors", tensors, tmp_path / "clip", "model.safetensors")
    write("open_clip", tensors, tmp_path / "clip", "open_clip_pytorch_model.bin")
    assert_towers(tmp_path / "clip", tensors)
    write("open_clip", {**tensors, "visual.proj": tensors["visual.proj"] + 1}, tmp_path / "clip", "z.bin")
    with pytest.raises(FileRefused, match=r"model\.safetensors and z\.bin"):
        load_towers(str(tmp_path / "clip"), TINY)


def test_the_folder_of_a_hubs_cache(tensors, tmp_path):
    blobs, snapshot = tmp_path / "clip" / "blobs", tmp_path / "clip" / "snapshots" / "3d74acf9"
    snapshot.mkdir(parents=True)
    write("transformers safetensors", tensors, blobs, "a63082132ba4")
    (snapshot / "model.safetensors").symlink_to("../../blobs/a63082132ba4")
    assert_towers(tmp_path / "clip", tensors)
    assert_towers(snapshot, tensors)


def test_a_folder_without_clip(tmp_path):
    for content in ({}, {"a.bin": {"other": torch.ones(2)}}):
        for name, tensors in content.items():
            torch.save(tensors, tmp_path / name)
        with pytest.raises(FileRefused, match=str(tmp_path)) as info:
            clip_state_dict(str(tmp_path))
        assert all(name in str(info.value) for name in content)


def test_another_file_of_weights(tmp_path):
    save_file({"generator.fc.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(FileRefused, match=r"x\.safetensors.*generator\.fc\.weight"):
        clip_state_dict(str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, name: tensors.pop(name),
        lambda tensors, name: tensors.update({name: torch.zeros(3, 3)}),
        lambda tensors, name: tensors.update({name: torch.tensor(1.0)}),
        lambda tensors, name: tensors.update({name: tensors[name].to(torch.int8)}),
        lambda tensors, name: tensors.update({name: torch.zeros(1).expand(2**20, 2**20)}),
    ],
    ids=["missing", "misshapen", "scalar", "quantised", "of a terabyte"],
)
def test_a_damaged_key_projection(tensors, tmp_path, change):
    names = transformers_names(tensors)
    change(names, "text_model.encoder.layers.0.self_attn.k_proj.weight")
    torch.save(names, tmp_path / "model.bin")
    with pytest.raises(FileRefused, match=str(tmp_path)):
        clip_state_dict(str(tmp_path / "model.bin"))


def test_a_name_that_is_there_twice(tensors, tmp_path):
    torch.save({**tensors, "module.visual.proj": tensors["visual.proj"]}, tmp_path / "clip.pt")
    with pytest.raises(FileRefused, match=r"clip\.pt"):
        clip_state_dict(str(tmp_path / "clip.pt"))


# TorchScript archives


def test_a_real_clip_as_torchscript(tmp_path):
    """open_clip's own modules, scripted, with more blocks than lists may nest."""
    clip = build_clip(preset("default").clip)
    torch.jit.script(clip).save(tmp_path / "clip.pt")
    loaded, expected = clip_state_dict(str(tmp_path / "clip.pt")), clip.state_dict()
    assert loaded.keys() == expected.keys() - {"logit_scale"}
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)


def test_torch_jit_is_not_used(tensors, tmp_path, monkeypatch):
    path = write("openai", tensors, tmp_path)
    for name in ("load", "_load_for_lite_interpreter"):
        monkeypatch.setattr(torch.jit, name, None, raising=False)
    assert_towers(path, tensors)


def repacked(path, **members):
    """The archive with members replaced; None drops one."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(contents)).partition("/")[0]
    for name, data in members.items():
        contents[f"{root}/{name}"] = data
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            if data is not None:
                archive.writestr(name, data)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_the_archive_does_not_run(tensors, tmp_path, protocol):
    path, target = write("openai", tensors, tmp_path), tmp_path / "boom"
    bomb = pickle.dumps({"visual": Bomb(str(target)), "state_dict": Bomb(str(target))}, protocol)
    code = b"def forward(self):\n  raise Exception\n"
    repacked(path, **{"data.pkl": bomb, "constants.pkl": bomb, "code/__torch__.py": code})
    with pytest.raises(FileRefused, match=str(path)):
        clip_state_dict(str(path))
    assert not target.exists()


MODULE = b"c__torch__\nM\n)\x81"
CYCLE = b"\x80\x02" + MODULE + b"q\x00}X\x01\x00\x00\x00ah\x00sb."
DOUBLING = (
    b"\x80\x02"
    + MODULE
    + b"q\x00"
    + b"".join(
        MODULE
        + b"}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cub" % (index, index)
        + b"q"
        + bytes([index + 1])
        for index in range(30)
    )
    + b"."
)


@pytest.mark.parametrize(
    "data",
    [
        CYCLE,
        DOUBLING,
        b"",
        b"\x80\x02.",
        b"\x80\x02b.",
        b"\x80\x02u.",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02}}}s.",
        b"\x80\x02]}s.",
        b"\x80\x02" + MODULE,
        b"\x80\x02" + MODULE + b"}X\x01\x00\x00\x00aNsb",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"not a pickle",
    ],
    ids=lambda data: repr(data)[:24],
)
def test_a_forged_list_of_modules(tensors, tmp_path, data):
    path = write("openai", tensors, tmp_path)
    repacked(path, **{"data.pkl": data})
    with pytest.raises(FileRefused, match=str(path)):
        clip_state_dict(str(path))


def test_a_storage_that_is_missing_short_or_damaged(tensors, tmp_path):
    for change in ({"data/0": None}, {"data/0": b"12"}, {"data/0": b""}):
        path = write("openai", tensors, tmp_path)
        repacked(path, **change)
        with pytest.raises(FileRefused, match=str(path)):
            clip_state_dict(str(path))
    path = write("openai", tensors, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileRefused, match=str(path)):
        clip_state_dict(str(path))


def test_flipped_bits(tensors, tmp_path):
    """Whatever a flip makes of an archive, it is refused in words or read: nothing else escapes."""
    path = write("openai", tensors, tmp_path)
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        data = archive.read(name)
    generator = torch.Generator().manual_seed(1)
    for place in torch.randint(len(data), (60,), generator=generator).tolist():
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        repacked(path, **{"data.pkl": bytes(broken)})
        with contextlib.suppress(FileRefused):
            clip_state_dict(str(path))


# Tags


def test_open_clips_table_is_read_without_torch():
    code = """
import sys
from galip.clip_tags import _known_weights
print(sorted((m, t, p.url, p.hub) for m, row in _known_weights().items() for t, p in row.items()))
assert "torch" not in sys.modules
from galip.clip import import_open_clip
o = import_open_clip()
pairs = sorted(o.list_pretrained())
c = [o.get_pretrained_cfg(*pair) for pair in pairs]
print([(*pair, c.get("url", ""), c.get("hf_hub", "")) for pair, c in zip(pairs, c)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, theirs = done.stdout.splitlines()
    assert ours == theirs


@pytest.mark.parametrize("clip", ["opnai", "ViT-B-32:opnai", "ViT-B-33:openai", ":", "a:b:c", ""])
def test_no_such_tag(clip):
    with pytest.raises(UsageError, match=repr(clip)):
        find_pretrained(clip)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A home without CLIP and no network; gives the attempts to reach one."""
    attempts = []

    def urlopen(request, timeout):
        attempts.append(request.full_url)
        raise urllib.error.URLError(OSError("no route to host"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return attempts


def test_no_network(offline, tmp_path):
    with pytest.raises(FileRefused) as info:
        clip_state_dict("openai")
    assert len(offline) == 1
    message = str(info.value)
    assert "\n" not in message
    assert "no route to host" in message
    assert "OpenAI's ViT-B-32.pt" in message
    assert str(tmp_path / ".cache" / "clip" / "ViT-B-32.pt") in message


def test_offline_by_choice(offline, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileRefused, match="HF_HUB_OFFLINE"):
        clip_state_dict("openai")
    assert offline == []


def test_what_a_hub_has_cached_is_read(offline, tensors, tmp_path):
    repository = find_pretrained("openai").hub.rstrip("/").replace("/", "--")
    folder = tmp_path / f"models--{repository}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots").mkdir()
    write("open_clip safetensors", tensors, folder / "snapshots" / "abc", "open_clip_model.safetensors")
    assert_towers("openai", tensors)
    assert offline == []


def test_a_file_put_where_the_message_says(offline, tensors, tmp_path):
    file = find_pretrained("openai").file
    file.parent.mkdir(parents=True)
    shutil.copy(write("openai", tensors, tmp_path / "download"), file)
    assert_towers("openai", tensors)
    assert_towers("ViT-B-32:openai", tensors)
    assert offline == []


def test_a_host_that_answers_is_enough(monkeypatch, tmp_path):
    def urlopen(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", {}, io.BytesIO())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("HOME", str(tmp_path))
    PretrainedClip("M", "t", "https://localhost/x.pt").check_reachable()
