"""Checkpoints that lie about what they hold: refused by name, before anything of their sizes is built."""

import dataclasses
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import pytest
import torch
from galip_runtime.errors import FileRefused
from safetensors.torch import save_file

from galip.checkpoint import (
    blank_galip,
    is_galip_checkpoint,
    load_clip,
    load_galip,
    load_weights,
    read_info,
    save_galip,
)
from galip.clip import build_clip
from galip.convert import convert_released, read_state_dict
from galip.model import Galip
from galip.pickles import read_pickled
from galip.presets import preset
from galip.tensors import read_header, read_safetensors

pytestmark = pytest.mark.usefixtures("one_thread")


def parts_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path, header, numbers):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return path


@pytest.fixture
def forged(tiny_checkpoint, tmp_path):
    """Write the tiny checkpoint again after `change(header)`; `change` may return a header in bytes."""

    def make(change, source=tiny_checkpoint, numbers=None):
        header, own = parts_of(source)
        changed = change(header)
        header = changed if isinstance(changed, bytes) else header
        return write(tmp_path / "forged.safetensors", header, own if numbers is None else numbers)

    return make


def with_config(*path, value):
    def change(header):
        config = json.loads(header["__metadata__"]["config"])
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        assert path[-1] in inner
        inner[path[-1]] = value
        header["__metadata__"]["config"] = json.dumps(config)

    return change


def refused(path, load=load_galip):
    with pytest.raises(FileRefused) as error:
        load(path)
    assert str(path) in str(error.value)
    return str(error.value)


# A config that the file does not bear out


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("generator", "channels"), [10**9] * 4),
        (("generator", "channels"), [16_384] * 4),
        (("generator", "noise_dim"), 16_384),
        (("generator", "noise_dim"), 10**30),
        (("generator", "fusion_blocks"), 10**8),
        (("generator", "fusion_blocks"), 128),
        (("generator", "sizes"), [8, 16, 4096]),
        (("generator", "sizes"), []),
        (("generator", "prompt_layers"), [0] * 100_000),
        (("generator", "clip_weight"), 1e300),
        (("generator", "clip_weight"), 10**400),
        (("generator", "clip_weight"), True),
        (("generator", "use_clip"), False),
        (("discriminator", "channels"), 16_384),
        (("discriminator", "features"), {}),
        (("discriminator", "pixel_range"), []),
        (("clip", "embed_dim"), 16_384),
        (("clip", "mean"), [1e39, 0, 0]),
        (("clip", "std"), [1e-300, 1, 1]),
        (("clip", "image", "layers"), 10**6),
        (("clip", "image", "layers"), 128),
        (("clip", "text", "layers"), 128),
        (("clip", "text", "width"), 16_384),
        (("clip", "text", "merges"), 48_894),
        (("clip", "text", "context_length"), 4096),
        (("clip", "text", "heads"), 3),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_config_of_other_sizes_builds_nothing_of_them(forged, path, value):
    """Compared with a file of its sizes the config costs neither memory nor time."""
    file = forged(with_config(*path, value=value))
    tracemalloc.start()
    try:
        refused(file)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_blocks_are_counted_before_one_is_built(forged, tiny_checkpoint, tiny_clip, monkeypatch):
    monkeypatch.setattr("galip.checkpoint.Galip", lambda config: pytest.fail("a model was built"))
    monkeypatch.setattr("galip.checkpoint.build_clip", lambda config: pytest.fail("towers were built"))
    message = refused(forged(with_config("clip", "text", "layers", value=100)))
    assert re.search(r"\b2 blocks text\.transformer\.resblocks\..*\b100\b", message)
    file = forged(with_config("image", "layers", value=100), source=tiny_clip)
    assert re.search(r"visual\.transformer\.resblocks\..*\b100\b", refused(file, load_clip))


def test_towers_of_other_sizes(forged, tiny_clip):
    file = forged(with_config("embed_dim", value=16_384), source=tiny_clip)
    assert "misshapen: text_projection is (16, 16), should be (16, 16384)" in refused(file, load_clip)
    clip, _ = load_clip(tiny_clip)
    assert torch.equal(clip.attn_mask, build_clip(preset("tiny").clip).attn_mask)
    assert not any(tensor.is_meta for tensor in (*clip.parameters(), *clip.buffers()))


def test_only_the_copy_of_the_image_tower_may_be_an_alias(forged):
    """Else one stored tensor could stand for any number of them."""

    def change(header):
        header["__metadata__"]["aliases"] = json.dumps({"generator.to_rgb.bias": "generator.to_rgb.weight"})

    assert "'generator.to_rgb.bias'" in refused(forged(change))


# Headers


def first(header):
    return next(name for name in header if name != "__metadata__")


def twice(header):
    text = json.dumps(header)
    return f'{text[:-1]}, "{first(header)}": {json.dumps(header[first(header)])}}}'.encode()


def changed(**fields):
    def change(header):
        header[first(header)] |= fields

    return change


HEADERS = {
    "a list": lambda header: b"[]",
    "deep": lambda header: b"[" * 100_000,
    "a tensor twice": twice,
    "metadata a list": lambda header: header.update(__metadata__=[]),
    "metadata of numbers": lambda header: header["__metadata__"].update(note=3),
    "an entry that is none": lambda header: header.update(more=3),
    "overlapping": lambda header: header.update(more=dict(header[first(header)])),
    "reversed": changed(data_offsets=[4, 0]),
    "beyond the file": changed(data_offsets=[0, 2**60]),
    "negative shape": changed(shape=[-1]),
    "huge shape": changed(shape=[2**47, 2**47]),
    "shape of truth": changed(shape=[True]),
    "many sides": changed(shape=[1] * 5000),
    "unknown dtype": changed(dtype="F128"),
    "dtype a number": changed(dtype=32),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies(forged, change):
    file = forged(change)
    refused(file)
    assert not is_galip_checkpoint(file)
    refused(file, read_safetensors)


@pytest.mark.parametrize("length", [2**60, 2**63, 5 * 2**20])
def test_the_length_of_a_header_is_bounded(tmp_path, length):
    file = tmp_path / "long.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{}")
    with file.open("r+b") as stream:
        stream.truncate(6 * 2**20)
    assert f"{length:,} bytes" in refused(file)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        for read in (load_galip, load_clip, read_info, read_header, read_pickled, read_state_dict):
            with pytest.raises(FileRefused, match=str(path)):
                read(type(tmp_path)(path))
        assert not is_galip_checkpoint(type(tmp_path)(path))


@pytest.mark.parametrize(
    ("dtype", "bits"), [("I32", 32), ("I64", 64), ("BOOL", 8), ("C64", 64), ("F8_E4M3", 8), ("F4", 4)]
)
def test_numbers_of_another_kind_are_named(forged, dtype, bits):
    def change(header):
        begin, end = header[first(header)]["data_offsets"]
        header[first(header)] |= {"dtype": dtype, "shape": [(end - begin) * 8 // bits]}

    file = forged(change)
    name = first(parts_of(file)[0])
    assert f"{name} ({dtype})" in refused(file)
    assert f"{name} ({dtype})" in refused(file, read_info)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_converted(tiny_checkpoint, tmp_path, dtype):
    with torch.no_grad():
        model = load_galip(tiny_checkpoint, needs=("text", "image", "discriminator"))
    save_galip(tmp_path / "other.safetensors", model, dtype=dtype)
    loaded = load_galip(tmp_path / "other.safetensors")
    expected = model.state_dict()["generator.to_rgb.weight"].to(dtype).float()
    assert torch.equal(loaded.state_dict()["generator.to_rgb.weight"], expected)


# Pickles


PLAIN = torch.arange(12.0).reshape(3, 4)
ODD = {
    "quantised": lambda: torch.quantize_per_tensor(PLAIN, 0.1, 0, torch.qint8),
    "sparse_coo": lambda: PLAIN.to_sparse(),
    "sparse_csr": lambda: PLAIN.to_sparse_csr(),
    "meta": lambda: PLAIN.to("meta"),
    "complex64": lambda: PLAIN.to(torch.complex64),
    "float8_e4m3fn": lambda: PLAIN.to(torch.float8_e4m3fn),
    "int64": lambda: PLAIN.long(),
    "bool": lambda: PLAIN.bool(),
    "nested": lambda: torch.nested.nested_tensor([PLAIN, PLAIN[:2]]),
}


def modules(**tensors):
    return {"model": {"netG": tensors, "netD": {}, "netC": {}}}


def convert(path):
    out = path.with_name("out.safetensors")
    try:
        convert_released(path, out, allow_missing_text=True, config=preset("tiny"))
    finally:
        assert not out.exists()


@pytest.mark.filterwarnings("ignore")  # some of these kinds are in beta
@pytest.mark.parametrize("kind", ODD)
def test_a_pickled_tensor_of_another_kind_is_named(tmp_path, kind):
    torch.save(modules(**{"module.fc_code.weight": ODD[kind]()}), tmp_path / "odd.pth")
    message = refused(tmp_path / "odd.pth", convert)
    assert "generator.bridge.fc.weight (" in message
    assert kind in message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_number_stretched_to_a_tera_is_not_converted(tmp_path, dtype):
    stretched = torch.zeros(1, dtype=dtype).expand(10**12)
    torch.save(modules(**{"fc_code.weight": stretched}), tmp_path / "odd.pth")
    assert "misshapen: generator.bridge.fc.weight is (1000000000000,)" in refused(
        tmp_path / "odd.pth", convert
    )


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    config = preset("tiny")
    weights = {
        name: torch.zeros(1).expand(tensor.shape) for name, tensor in Galip(config).state_dict().items()
    }
    shared = torch.ones(16)
    weights |= {name: shared for name in weights if name.startswith("text.ln_final.")}
    model = blank_galip(config, ("text", "image", "generator", "discriminator"))
    load_weights(model, weights, "the file")
    save_galip(tmp_path / "model.safetensors", model)
    assert torch.equal(load_galip(tmp_path / "model.safetensors").text.ln_final.bias, shared)


def archive(path, pickled, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": pickled, "version": b"3\n", **members}.items():
            file.writestr(f"archive/{name}", content)
    return path


def deep(levels, inner=b")", wrap=b"\x85"):
    """A dict whose key is a tuple of so many levels; Python's own stack overflows when it hashes it."""
    return b"\x80\x02}" + inner + wrap * levels + b"K\x01s."


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [deep(300_000), deep(200_000, wrap=b"K\x01\x86"), b"\x80\x02" + b"]" * 9999 + b"a" * 9998 + b"."],
    ids=["tuples", "pairs", "lists"],
)
def test_deep_data_ends_no_process(tmp_path, content, legacy):
    path = tmp_path / "deep.pth"
    if legacy:
        path.write_bytes(content)
    else:
        archive(path, content)
    code = (
        "import sys, pathlib; from galip.pickles import read_pickled; read_pickled(pathlib.Path(sys.argv[1]))"
    )
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert f"FileRefused: {path}" in child.stderr


def test_an_archive_that_grows(tmp_path):
    path = archive(tmp_path / "bomb.pth", pickle.dumps({}), zipfile.ZIP_DEFLATED, **{"data/0": bytes(2**27)})
    assert path.stat().st_size < 2**18
    assert "134,2" in refused(path, read_pickled)
    path = archive(tmp_path / "long.pth", bytes(5 * 2**20))
    assert "5,242,880 bytes" in refused(path, read_pickled)


def test_checksums_are_compared_where_they_are_ours(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"weight": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<f", 500.0))
    data[place] ^= 1
    path.write_bytes(data)
    assert read_pickled(path)["weight"][500] != 500  # PyTorch does not notice
    with pytest.raises(FileRefused, match=r"checksum of .*data/0"):
        read_pickled(path, checksums=True)


def test_pickles_of_every_format_are_read(tmp_path):
    state = {
        "model": dict(build_clip(preset("tiny").clip).state_dict()),
        "epoch": 3,
        "names": [("a", (1, 2))],
    }
    for zipped in (True, False):
        torch.save(state, tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
        loaded = read_pickled(tmp_path / "state.pt", checksums=True)
        assert loaded["epoch"] == 3
        assert all(torch.equal(loaded["model"][name], tensor) for name, tensor in state["model"].items())


def test_a_foreign_file_with_counters_is_still_clip(tmp_path):
    """OpenAI's state dicts have whole numbers beside the weights; those are left out, not refused."""
    from galip.convert import clip_state_dict

    counters = {"input_resolution": torch.tensor(28), "context_length": torch.tensor(16)}
    save_file({"visual.proj": torch.ones(2), **counters}, tmp_path / "clip.safetensors")
    assert set(clip_state_dict(str(tmp_path / "clip.safetensors"))) == {"visual.proj"}


def test_a_state_dict_in_memory(tmp_path):
    """`load_weights` refuses what is no plain tensor whoever hands it over."""
    linear = torch.nn.Linear(2, 2)
    for odd in (
        torch.zeros(2, 2, dtype=torch.int8),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, 2).to("meta"),
    ):
        with pytest.raises(FileRefused, match=r"the file .*weight"):
            load_weights(linear, {"weight": odd, "bias": torch.zeros(2)}, "the file")
    buffer = io.BytesIO()
    torch.save(dataclasses.asdict(preset("tiny").clip), buffer)
    (tmp_path / "plain.pt").write_bytes(buffer.getvalue())
    assert read_pickled(tmp_path / "plain.pt")["embed_dim"] == 16
