"""A bundle is refused before its files are parsed, unless it is complete and exactly as exported."""

import json
import os
import shutil

import galip_runtime
import onnx
import pytest
from error_checks import assert_names, expect_error, is_named
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
from stub_bundle import MERGES, make_stub_bundle, relist, restate

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
    """Yield the paths of all fields of the manifest, except those of free form."""
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
    """Let everything that parses a file of the bundle fail the test."""

    def fail(*_, **__):
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(loading.Tokenizer, "from_bytes", fail)
    monkeypatch.setattr(onnxruntime_runner.Runner, "__init__", fail)


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


def test_every_field_is_required_and_typed(bundle):
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
            with expect_error(FileRefused) as info:
                Manifest.from_json(manifest_text(data))
            if change == "ill-typed":
                assert_names(str(info.value), 1.5)
            if isinstance(path[-1], str) and change == "ill-typed" and path != ("format_version",):
                assert_names(str(info.value), path[-1])


def test_fields_of_later_versions_are_ignored(bundle):
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data["later"] = data["dimensions"]["later"] = [1, None]
    assert Manifest.from_json(manifest_text(data)) == read_manifest(bundle)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"format": "other"}, ["galip-bundle"]),
        ({"format_version": 2}, [2, 1]),
        ({"format_version": 0}, [0, 1]),
        ({"format_version": True}, ["True", 1]),
        ({"format_version": "1"}, ["'1'", 1]),
        ({"noise": {"name": "mersenne"}}, ["mersenne"]),
        ({"graphs": {}}, ["graphs", "text_encoder", "generator"]),
        ({"files": {}}, ["text_encoder.onnx"]),
    ],
    ids=str,
)
def test_another_format_is_refused(bundle, change, values):
    data = json.loads((bundle / MANIFEST_NAME).read_text()) | change
    restate(bundle, data)
    with expect_error(FileRefused, bundle / MANIFEST_NAME, *values):
        galip_runtime.load(bundle)


def test_sizes_and_tensors_outside_the_contract_are_refused(bundle):
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
        with expect_error(FileRefused):
            Manifest.from_json(manifest_text(data))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"a"', b"\xff\xfe\x00", b"\x80\x04.", '{"a": NaN}', "[" * 100_000, "9" * 5000,
     '{"format": "galip-bundle", "format": "galip-bundle"}', '{"format": "galip-bundle"}'],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_text_that_is_no_manifest_is_refused(bundle, text):
    (bundle / MANIFEST_NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with expect_error(FileRefused, bundle / MANIFEST_NAME):
        galip_runtime.load(bundle)


def test_a_huge_manifest_is_not_read(bundle):
    with open(bundle / MANIFEST_NAME, "r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    with expect_error(FileRefused, bundle / MANIFEST_NAME, 2**40):
        galip_runtime.load(bundle)


@pytest.mark.parametrize("name", ["nothing", "file", "empty folder", "\0"])
def test_a_path_without_a_bundle_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty folder").mkdir()
    with expect_error(FileRefused, tmp_path / name / MANIFEST_NAME, "galip export"):
        galip_runtime.load(tmp_path / name)


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
    with expect_error(FileRefused, path):
        galip_runtime.load(bundle)


class TestLinks:
    """Bundles in Hugging Face's cache: their files are links to `blobs`, which are named by their hash."""

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
    def test_a_bundle_of_links_is_the_bundle(self, bundle, linked, device):
        expected = galip_runtime.load(bundle, device=device).generate("apple", 1)
        for _ in range(2):  # hashed, then known from the cache
            assert (galip_runtime.load(linked, device=device).generate("apple", 1) == expected).all()

    def test_links_to_other_bytes_are_refused(self, linked, parsers):
        blob = (linked / "generator.onnx").resolve()
        data = blob.read_bytes()
        blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with expect_error(
            FileRefused, linked / "generator.onnx", read_manifest(linked).files["generator.onnx"].sha256
        ):
            galip_runtime.load(linked)

    @pytest.mark.parametrize("device", ["cpu", "openvino"])
    def test_links_changed_during_the_load_are_refused(self, linked, monkeypatch, device):
        original = loading.OnnxFile
        other = linked.parent / "other"
        shutil.copy(linked / "generator.onnx", other)

        def swap_before(path):
            (linked / "generator.onnx").unlink()
            (linked / "generator.onnx").symlink_to(other)
            monkeypatch.setattr(loading, "OnnxFile", original)
            return original(path)

        monkeypatch.setattr(loading, "OnnxFile", swap_before)
        target = (linked / "generator.onnx").resolve()
        with expect_error(FileRefused) as info:
            galip_runtime.load(linked, device=device)
        assert any(is_named(str(info.value), path) for path in (target, other))

    def test_links_within_the_bundle(self, bundle):
        (bundle / "data").mkdir()
        (bundle / "parity.json").rename(bundle / "data" / "parity.json")
        (bundle / "parity.json").symlink_to("data/parity.json")
        (bundle / "more").symlink_to(bundle / "data")
        relist(bundle, "more/parity.json")
        galip_runtime.load(bundle, device="cpu")

    def test_a_bundle_below_the_snapshot(self, linked):
        bundle = linked / "deep" / "bundle"
        bundle.mkdir(parents=True)
        for path in list(linked.iterdir()):
            if path.is_symlink():
                (bundle / path.name).symlink_to(f"../../../../blobs/{path.resolve().name}")
        galip_runtime.load(bundle, device="cpu")

    def test_a_link_to_the_bundle(self, bundle, tmp_path):
        (tmp_path / "elsewhere").symlink_to(bundle)
        galip_runtime.load(tmp_path / "elsewhere", device="cpu")

    @pytest.mark.parametrize("name", ["parity.json", "generator.onnx", "vocabulary.gz"])
    def test_links_that_leave_the_bundle_are_refused(self, bundle, tmp_path, name):
        (bundle / name).rename(tmp_path / "outside")
        (bundle / name).symlink_to(tmp_path / "outside")
        with expect_error(FileRefused, bundle / name, tmp_path / "outside"):
            galip_runtime.load(bundle, device="cpu")

    def test_links_that_leave_the_cache_are_refused(self, linked, tmp_path):
        target = (linked / "generator.onnx").resolve().rename(tmp_path / "outside")
        (linked / "generator.onnx").unlink()
        (linked / "generator.onnx").symlink_to(target)
        with expect_error(FileRefused, linked / "generator.onnx", target):
            galip_runtime.load(linked, device="cpu")


NAMES = [
    *("", ".", "..", "../x", "a/../x", "a/..", "/etc/passwd", "//server/x", "a//b", "a/", "./a"),
    *("C:\\x", "c:x", "a\\b", "a\0b", "a\nb", ".hidden", "a/.hidden", "-option", "é", "a b", "~", "a" * 300),
    MANIFEST_NAME,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_could_lead_outside_is_refused(bundle, name):
    shown = repr(name)[:200]
    with expect_error(FileRefused) as info:
        check_name(name)
    assert shown in str(info.value)
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data["files"][name] = data["files"]["parity.json"]
    restate(bundle, data)
    with expect_error(FileRefused, bundle / MANIFEST_NAME) as info:
        galip_runtime.load(bundle)
    assert shown in str(info.value)


@pytest.mark.parametrize("name", ["generator.fp16.onnx", "engines/sm_90+trt-10.plan", "a_b/c.d"])
def test_plain_names_are_accepted(name):
    assert check_name(name) == name


def test_a_path_to_the_bundle_may_have_links_and_dots(bundle, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(bundle)
    monkeypatch.chdir(bundle)
    for path in (tmp_path / "link", "../bundle", ".", str(bundle) + "/../bundle/"):
        assert galip_runtime.load(path, device="cpu").generate("apple", 1).shape == (1, 8, 8, 3)


def test_files_in_folders_and_unlisted_files(bundle):
    (bundle / "engines").mkdir()
    (bundle / "engines" / "x.plan").write_bytes(b"plan")
    relist(bundle, "engines/x.plan")
    (bundle / "notes.txt").write_text("mine")
    (bundle / "dangling").symlink_to("nowhere")
    galip_runtime.load(bundle, device="cpu")


def test_graphs_in_other_precisions_are_not_hashed(tmp_path):
    """A bundle of many precisions loads as fast as a bundle of one; a truncated file is still refused."""
    bundle = make_stub_bundle(tmp_path / "bundle", precisions=["fp32", "int8"])
    other = bundle / "generator.int8.onnx"
    data = other.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    galip_runtime.load(bundle, device="cpu", precision="fp32")
    with expect_error(FileRefused, other, read_manifest(bundle).files[other.name].sha256):
        galip_runtime.load(bundle, device="openvino", precision="int8")
    other.write_bytes(data[:-1])
    with expect_error(FileRefused, other, len(data), len(data) - 1):
        galip_runtime.load(bundle, device="cpu", precision="fp32")


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("name", ["generator.onnx", "text_encoder.onnx"])
def test_a_file_written_between_check_and_use_is_refused(bundle, monkeypatch, name, device):
    original = loading._start

    def swap_before(manifest, files, settings):
        (bundle / name).write_bytes((bundle / name).read_bytes())
        return original(manifest, files, settings)

    monkeypatch.setattr(loading, "_start", swap_before)
    with expect_error(FileRefused, bundle / name):
        galip_runtime.load(bundle, device=device)


@pytest.mark.parametrize("name", ["generator.onnx", "text_encoder.onnx"])
@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04.", b"x" * 5000, b"\x08\x0a\x3a\x05"], ids=lambda data: repr(data)[:20]
)
def test_a_listed_file_that_is_no_graph_is_refused(bundle, name, data):
    (bundle / name).write_bytes(data)
    relist(bundle, name)
    with expect_error(FileRefused, bundle / name):
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
    with expect_error(FileRefused, bundle / "generator.onnx"):
        galip_runtime.load(bundle, device="cpu")


def test_a_graph_with_other_inputs_or_outputs_is_refused(bundle, tmp_path):
    shutil.copy(bundle / "generator.onnx", bundle / "text_encoder.onnx")
    relist(bundle, "text_encoder.onnx")
    with expect_error(FileRefused, bundle / "text_encoder.onnx", "tokens"):
        galip_runtime.load(bundle, device="cpu")
    shutil.copy(make_stub_bundle(tmp_path / "large", image_size=16) / "generator.onnx", bundle)
    with expect_error(FileRefused, bundle / "generator.onnx"):
        galip_runtime.load(bundle, device="cpu")
    other = make_stub_bundle(tmp_path / "other")
    shutil.copy(tmp_path / "large" / "generator.onnx", other)
    relist(other, "generator.onnx")
    with expect_error(FileRefused, "generator.onnx", 16, 8):
        galip_runtime.load(other, device="cpu")


@pytest.mark.parametrize("data", [b"", b"i n\n"])
def test_a_broken_vocabulary_is_refused(bundle, data):
    (bundle / "vocabulary.gz").write_bytes(data)
    relist(bundle, "vocabulary.gz")
    for read in (lambda: galip_runtime.Tokenizer.from_bytes(data, 24), lambda: galip_runtime.load(bundle)):
        with expect_error(FileRefused):
            read()


def test_a_vocabulary_of_another_length_is_refused(bundle):
    (bundle / "vocabulary.gz").write_bytes(galip_runtime.Tokenizer([("i", "n")], 24).to_bytes())
    relist(bundle, "vocabulary.gz")
    with expect_error(FileRefused, "vocabulary.gz", 1, len(MERGES)):
        galip_runtime.load(bundle, device="cpu")
