"""A bundle is whole and as it was exported, or it is refused before anything but the manifest is parsed."""

import json
import os
import re
import shutil

import galip_runtime
import onnx
import pytest
from galip_runtime import FileRefused, loading
from galip_runtime.backends import onnxruntime_runner
from galip_runtime.bundle.canonical import REVISION, manifest_text
from galip_runtime.bundle.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_name,
    describe_file,
    read_manifest,
    read_verified,
    sha256_file,
    verify_files,
)
from onnx.external_data_helper import set_external_data
from stub_bundle import make_stub_bundle, relist, restate

LINKS = {
    "link to a pipe": "../fifo",
    "link to a device": "/dev/zero",
    "link to a folder": "..",
    "link to itself": "",
    "link to nothing": "../nothing",
    "link to another file": "../altered",
}
LISTED = ["generator.onnx", "parity.json", "text_encoder.onnx", "vocabulary.gz"]


def leaves(value, path=()):
    """Paths of all fields below the top of the manifest, the free-form ones aside."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if (path[0] if path else key) in ("model", "versions", "noise"):
            continue
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, key))


def at(data, path):
    for key in path:
        data = data[key]
    return data


@pytest.fixture
def parsers(monkeypatch):
    """Whatever would parse a file of the bundle fails the test if it is reached."""

    def reached(*_, **__):
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(loading.Tokenizer, "from_bytes", reached)
    monkeypatch.setattr(onnxruntime_runner.Runner, "__init__", reached)


def test_round_trip(bundle):
    text = (bundle / MANIFEST_NAME).read_text()
    manifest = Manifest.from_json(text)
    assert manifest.to_json() == text
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert sorted(manifest.files) == LISTED


def test_files_are_described_and_verified(bundle):
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    for name in LISTED:
        data = (bundle / name).read_bytes()
        assert read_verified(bundle, manifest, name) == data
        assert describe_file(bundle / name) == manifest.files[name]
        assert sha256_file(bundle / name) == manifest.files[name].sha256
        assert manifest.files[name].size == len(data)


def test_every_field_is_needed_and_has_a_type(bundle):
    text = (bundle / MANIFEST_NAME).read_text()
    paths = [path for path in leaves(json.loads(text)) if path[0] not in ("format", "digest", *REVISION)]
    assert len(paths) > 60
    for path in paths:
        for change in ("missing", "ill-typed"):
            if (path, change) == (("files", "parity.json"), "missing"):
                continue  # nothing refers to it
            data = json.loads(text)
            parent = at(data, path[:-1])
            if change == "ill-typed":
                parent[path[-1]] = 1.5
            else:
                del parent[path[-1]]
            with pytest.raises(FileRefused) as caught:
                Manifest.from_json(manifest_text(data))
            if isinstance(path[-1], str) and change == "ill-typed" and path != ("format_version",):
                assert path[-1] in str(caught.value), (path, str(caught.value))


def test_fields_of_later_versions_are_ignored(bundle):
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data["later"] = data["dimensions"]["later"] = [1, None]
    assert Manifest.from_json(manifest_text(data)) == read_manifest(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a bundle's manifest"),
        ({"format_version": 2}, "format version is 2"),
        ({"format_version": 0}, "format version is 0"),
        ({"format_version": True}, "format version is True"),
        ({"format_version": "1"}, "format version is '1'"),
        ({"noise": {"name": "mersenne"}}, "'mersenne'"),
        ({"graphs": {}}, "text_encoder"),
        ({"files": {}}, r"graphs\.text_encoder\.fp32\.file"),
    ],
    ids=str,
)
def test_another_format_is_refused(bundle, change, message):
    data = json.loads((bundle / MANIFEST_NAME).read_text()) | change
    restate(bundle, data)
    with pytest.raises(FileRefused, match=message):
        galip_runtime.load(bundle)


def test_sizes_and_tensors_that_break_the_contract_are_refused(bundle):
    text = (bundle / MANIFEST_NAME).read_text()
    for path, value in [
        (("dimensions", "noise_dim"), 0),
        (("dimensions", "image_height"), 10**9),
        (("dimensions", "sentence_dim"), 7),
        (("tokenizer", "context_length"), 25),
        (("tokenizer", "file"), "generator.gz"),
        (("files", "parity.json", "size"), -1),
        (("files", "parity.json", "sha256"), "0" * 63),
        (("graphs", "generator", "fp32", "inputs", 0, "name"), "z"),
        (("graphs", "generator", "fp32", "inputs", 0, "dtype"), "float16"),
        (("graphs", "generator", "fp32", "outputs", 0, "shape", 0), 1),
        (("graphs", "generator"), {}),
        (("graphs", "generator"), {"../fp32": json.loads(text)["graphs"]["generator"]["fp32"]}),
    ]:
        data = json.loads(text)
        at(data, path[:-1])[path[-1]] = value
        with pytest.raises(FileRefused):
            Manifest.from_json(manifest_text(data))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"a"', b"\xff\xfe\x00", b"\x80\x04.", '{"a": NaN}', "[" * 100_000, "9" * 5000,
     '{"format": "galip-bundle", "format": "galip-bundle"}', '{"format": "galip-bundle"}'],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(bundle, text):
    (bundle / MANIFEST_NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileRefused, match=r"manifest\.json is refused"):
        galip_runtime.load(bundle)


def test_a_huge_manifest_is_not_read(bundle):
    with open(bundle / MANIFEST_NAME, "r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(FileRefused, match=f"{2**40:,}"):
        galip_runtime.load(bundle)


@pytest.mark.parametrize("place", ["nothing", "file", "empty folder", "\0"])
def test_what_is_no_bundle_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty folder").mkdir()
    with pytest.raises(FileRefused, match="bundle"):
        galip_runtime.load(tmp_path / place)


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize(
    "damage", ["missing", "empty", "cut", "longer", "bit", "swapped", "folder", "fifo", *LINKS]
)
def test_a_damaged_file_is_refused_before_anything_is_parsed(bundle, parsers, name, damage):
    path = bundle / name
    data = path.read_bytes()
    if damage == "bit":
        path.write_bytes(bytes([*data[:-1], data[-1] ^ 1]))
    elif damage == "swapped":
        path.write_bytes((bundle / LISTED[LISTED.index(name) - 1]).read_bytes())
    elif damage in ("empty", "cut", "longer"):
        path.write_bytes({"empty": b"", "cut": data[:-1], "longer": data + b"\0"}[damage])
    else:
        path.rename(bundle.parent / "elsewhere")
        if damage == "folder":
            path.mkdir()
        elif damage == "fifo":
            os.mkfifo(path)
        elif damage in LINKS:
            os.mkfifo(bundle.parent / "fifo")
            (bundle.parent / "altered").write_bytes(bytes([data[0] ^ 1]) + data[1:])
            path.symlink_to(LINKS[damage] or path.name)
    with pytest.raises(FileRefused, match=name) as caught:
        galip_runtime.load(bundle)
    assert "export it again" in str(caught.value)


class TestLinks:
    """The files of a bundle in Hugging Face's cache are links to `blobs`, named by their hash."""

    @pytest.fixture
    def linked(self, bundle, tmp_path):
        blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
        blobs.mkdir()
        snapshot.mkdir(parents=True)
        for path in bundle.iterdir():
            blob = blobs / sha256_file(path)
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
        return snapshot

    @pytest.mark.parametrize("device", ["cpu", "openvino"])
    def test_lead_to_the_bundle(self, bundle, linked, device):
        right = galip_runtime.load(bundle, device=device).generate("apple", 1)
        for _ in range(2):  # hashed, and known to have been
            assert (galip_runtime.load(linked, device=device).generate("apple", 1) == right).all()

    def test_to_other_bytes_are_refused(self, linked, parsers):
        blob = (linked / "generator.onnx").resolve()
        data = blob.read_bytes()
        blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(FileRefused, match=r"generator\.onnx .*sha256"):
            galip_runtime.load(linked)

    @pytest.mark.parametrize("device", ["cpu", "openvino"])
    def test_that_lead_elsewhere_during_the_load_are_refused(self, linked, monkeypatch, device):
        original = loading.OnnxFile
        other = linked.parent / "other"
        shutil.copy(linked / "generator.onnx", other)

        def swap_before(path):
            (linked / "generator.onnx").unlink()
            (linked / "generator.onnx").symlink_to(other)
            monkeypatch.setattr(loading, "OnnxFile", original)
            return original(path)

        monkeypatch.setattr(loading, "OnnxFile", swap_before)
        with pytest.raises(FileRefused, match="was written while it was loaded"):
            galip_runtime.load(linked, device=device)

    def test_to_a_folder(self, bundle, tmp_path):
        (tmp_path / "outside").mkdir()
        shutil.copy(bundle / "parity.json", tmp_path / "outside")
        (bundle / "more").symlink_to(tmp_path / "outside")
        relist(bundle, "more/parity.json")
        galip_runtime.load(bundle, device="cpu")


NAMES = [
    *("", ".", "..", "../x", "a/../x", "a/..", "/etc/passwd", "//server/x", "a//b", "a/", "./a"),
    *("C:\\x", "c:x", "a\\b", "a\0b", "a\nb", ".hidden", "a/.hidden", "-option", "é", "a b", "~", "a" * 300),
    MANIFEST_NAME,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_could_lead_outside_is_refused(bundle, name):
    with pytest.raises(FileRefused, match=re.escape(repr(name)[1:20])):
        check_name(name)
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data["files"][name] = data["files"]["parity.json"]
    restate(bundle, data)
    with pytest.raises(FileRefused, match=re.escape(repr(name)[1:20])):
        galip_runtime.load(bundle)


@pytest.mark.parametrize("name", ["generator.fp16.onnx", "engines/sm_90+trt-10.plan", "a_b/c.d"])
def test_plain_names_are_fine(name):
    assert check_name(name) == name


def test_the_bundle_itself_may_be_reached_through_links_and_dots(bundle, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(bundle)
    monkeypatch.chdir(bundle)
    for path in (tmp_path / "link", "../bundle", ".", str(bundle) + "/../bundle/"):
        assert galip_runtime.load(path, device="cpu").generate("apple", 1).shape == (1, 8, 8, 3)


def test_files_in_folders_and_files_not_listed(bundle):
    (bundle / "engines").mkdir()
    (bundle / "engines" / "x.plan").write_bytes(b"plan")
    relist(bundle, "engines/x.plan")
    (bundle / "notes.txt").write_text("mine")
    (bundle / "dangling").symlink_to("nowhere")
    galip_runtime.load(bundle, device="cpu")


def test_a_graph_that_is_not_loaded_is_not_hashed(tmp_path):
    """A bundle of many precisions loads as fast as one of one; a file cut short is refused all the same."""
    bundle = make_stub_bundle(tmp_path / "bundle", precisions=["fp32", "int8"])
    other = bundle / "generator.int8.onnx"
    data = other.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    galip_runtime.load(bundle, device="cpu", precision="fp32")
    with pytest.raises(FileRefused, match=r"generator\.int8\.onnx .*sha256"):
        galip_runtime.load(bundle, device="openvino", precision="int8")
    other.write_bytes(data[:-1])
    with pytest.raises(FileRefused, match=r"generator\.int8\.onnx .*size"):
        galip_runtime.load(bundle, device="cpu", precision="fp32")


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("name", ["generator.onnx", "text_encoder.onnx"])
def test_a_file_written_between_check_and_use_is_refused(bundle, monkeypatch, name, device):
    original = loading._start

    def swap_before(manifest, files, settings):
        (bundle / name).write_bytes((bundle / name).read_bytes())
        return original(manifest, files, settings)

    monkeypatch.setattr(loading, "_start", swap_before)
    with pytest.raises(FileRefused, match=f"{name} was written while it was loaded"):
        galip_runtime.load(bundle, device=device)


@pytest.mark.parametrize("name", ["generator.onnx", "text_encoder.onnx"])
@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04.", b"x" * 5000, b"\x08\x0a\x3a\x05"], ids=lambda data: repr(data)[:20]
)
def test_what_is_listed_but_no_graph_is_refused(bundle, name, data):
    (bundle / name).write_bytes(data)
    relist(bundle, name)
    with pytest.raises(FileRefused, match=name):
        galip_runtime.load(bundle, device="cpu")


@pytest.mark.parametrize("location", ["weight.bin", "../bundle/weight.bin", "parity.json"])
def test_a_graph_with_weights_in_another_file_is_refused(bundle, monkeypatch, location):
    model = onnx.load(bundle / "generator.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    (bundle / "weight.bin").write_bytes(weight.raw_data)
    set_external_data(weight, location, 0, len(weight.raw_data))
    weight.ClearField("raw_data")
    (bundle / "generator.onnx").write_bytes(model.SerializeToString())
    relist(bundle, "generator.onnx", "weight.bin")
    monkeypatch.chdir(bundle)  # where onnxruntime would look for it
    with pytest.raises(FileRefused, match=r"generator\.onnx .*external data"):
        galip_runtime.load(bundle, device="cpu")


def test_another_graph_than_the_manifest_says_is_refused(bundle, tmp_path):
    shutil.copy(bundle / "generator.onnx", bundle / "text_encoder.onnx")
    relist(bundle, "text_encoder.onnx")
    with pytest.raises(FileRefused, match=r"text_encoder\.onnx"):
        galip_runtime.load(bundle, device="cpu")
    shutil.copy(make_stub_bundle(tmp_path / "large", image_size=16) / "generator.onnx", bundle)
    with pytest.raises(FileRefused):
        galip_runtime.load(bundle, device="cpu")
    other = make_stub_bundle(tmp_path / "other")
    shutil.copy(tmp_path / "large" / "generator.onnx", other)
    relist(other, "generator.onnx")
    with pytest.raises(FileRefused, match=r"generator\.onnx"):
        galip_runtime.load(other, device="cpu")


@pytest.mark.parametrize("data", [b"", b"i n\n"])
def test_a_vocabulary_that_is_none_is_refused(bundle, data):
    (bundle / "vocabulary.gz").write_bytes(data)
    relist(bundle, "vocabulary.gz")
    with pytest.raises(FileRefused, match="vocabulary"):
        galip_runtime.load(bundle, device="cpu")


def test_a_vocabulary_of_another_length_is_refused(bundle):
    (bundle / "vocabulary.gz").write_bytes(galip_runtime.Tokenizer([("i", "n")], 24).to_bytes())
    relist(bundle, "vocabulary.gz")
    with pytest.raises(FileRefused, match="1 merges"):
        galip_runtime.load(bundle, device="cpu")
