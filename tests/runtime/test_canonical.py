"""A manifest is refused after any change of it, and those from before there was a digest are not."""

import hashlib
import json
import random

import galip_runtime
import pytest
from galip_runtime import FileRefused
from galip_runtime.bundle.canonical import manifest_text
from galip_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from stub_bundle import make_stub_bundle, restate


@pytest.fixture(scope="module")
def text(shared_bundle):
    return (shared_bundle / MANIFEST_NAME).read_bytes()


@pytest.fixture
def old(bundle):
    """The stub as it was before manifests had a digest."""
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    del document["digest"], document["format_revision"]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return bundle


def refused(text):
    with pytest.raises(FileRefused):
        Manifest.from_json(text)


def test_the_digest_is_of_the_text_without_its_line(text):
    lines = text.splitlines(keepends=True)
    (line,) = [each for each in lines if each.startswith(b'  "digest"')]
    lines.remove(line)
    assert line == f'  "digest": "{hashlib.sha256(b"".join(lines)).hexdigest()}",\n'.encode()


def test_a_byte_that_changed_anywhere_is_noticed(text):
    rng = random.Random(0)
    for place, byte in enumerate(text):
        for other in (byte ^ 1 << place % 8, byte ^ rng.randrange(1, 256)):
            refused(text[:place] + bytes([other]) + text[place + 1 :])


def test_a_text_cut_anywhere_is_noticed(text):
    for end in range(len(text)):
        refused(text[:end])


def test_a_byte_or_line_lost_or_twice_is_noticed(text):
    for place in range(0, len(text), 3):
        refused(text[:place] + text[place + 1 :])
        refused(text[:place] + text[place : place + 1] + text[place:])
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        refused(b"".join(lines[:number] + lines[number + 1 :]))
        refused(b"".join([*lines[:number], line, *lines[number:]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: text + b"\0",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b""),
        lambda text: json.dumps(json.loads(text)).encode(),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=2).encode() + b"\n",
        lambda text: text.replace(b'"format_version": 1', b'"format_version": 1.0'),
        lambda text: text.replace(b'"format_version": 1', b'"format_version": 1e0'),
        lambda text: text.replace(b'"stub": true', b'"stub": 1'),
        lambda text: text.replace(b'"stub": true', b'"st\\u0075b": true'),
        lambda text: text.replace(b'"stub": true', b'"stub": true, "stub": true'),
        lambda text: text.replace(b'"digest"', b'"Digest"'),
        lambda text: text.replace(b'"digest": "', b'"digest": null, "was": "'),
        lambda text: text.replace(b"0" * 64, b"0" * 63 + b"1"),
    ],
)
def test_the_same_said_otherwise_is_noticed(text, change):
    changed = change(text)
    assert changed != text
    refused(changed)


def test_by_every_reader(bundle):
    path = bundle / MANIFEST_NAME
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"stub": "1"', b'"stub": "3"'))  # a version, which nothing else reads
    for read in (read_manifest, galip_runtime.load):
        with pytest.raises(FileRefused, match=MANIFEST_NAME):
            read(bundle)


def test_what_the_model_says_of_itself(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    assert galip_runtime.load(bundle, device="cpu").info()["digest"] == document["digest"]


class TestFromBeforeDigests:
    def test_is_read_and_said(self, old):
        assert galip_runtime.load(old, device="cpu").info()["digest"] is None

    def test_is_the_same_manifest_and_gets_a_digest(self, old, tmp_path):
        other = make_stub_bundle(tmp_path / "other")
        assert read_manifest(old) == read_manifest(other)
        assert read_manifest(old).to_json() == (other / MANIFEST_NAME).read_text()

    def test_is_noticed_where_it_is_another_text(self, old):
        text = (old / MANIFEST_NAME).read_bytes()
        Manifest.from_json(text)
        for changed in (text + b" ", text.replace(b"\n", b"\r\n"), json.dumps(json.loads(text)).encode()):
            refused(changed)

    def test_has_the_fields_of_then_alone(self, old):
        document = json.loads((old / MANIFEST_NAME).read_text())
        for name in ("format_revision", "later", "dIgest"):
            refused(json.dumps({**document, name: 1}, indent=2, sort_keys=True) + "\n")


def test_text_that_is_no_unicode(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    for change in (
        {"model": {"a": "\ud800"}},
        {"model": {"\udfff": 1}},
        {"versions": {"a": "\ud800"}},
        {"later": ["\ud800"]},
    ):
        restate(bundle, {**document, **change})
        with pytest.raises(FileRefused, match="Unicode"):
            galip_runtime.load(bundle)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("true", "[" * 100_000),
        *(("true", opening * depth + "1" + closing * depth)
          for opening, closing in (("[", "]"), ('{"a":', "}")) for depth in (70, 330, 490, 1000, 20_000)),
        ("true", "9" * 100_000),
        ("true", "1e999"),
        ("true", "-" + "9" * 20),
        ("true", "NaN"),
        ("true", "[" + "[]," * 300_000 + "[]]"),
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_would_take_for_ever(bundle, was, now):
    path = bundle / MANIFEST_NAME
    path.write_text(path.read_text().replace(f'"stub": {was}', f'"stub": {now}', 1))
    for read in (read_manifest, galip_runtime.load):
        with pytest.raises(FileRefused, match=r"manifest\.json"):
            read(bundle)


def test_names_that_python_uses(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    document["model"] = {"__class__": {"__init__": [1]}, "__dict__": None}
    document["__class__"] = document["dimensions"]["__class__"] = "Manifest"
    restate(bundle, document)
    assert galip_runtime.load(bundle, device="cpu").info()["model"] == document["model"]


def test_the_text_is_the_same_whatever_digest_it_had(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    assert manifest_text({**document, "digest": 1}) == manifest_text(document)
