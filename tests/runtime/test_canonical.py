"""A manifest's digest: any change of the text is refused; manifests from before digests still load."""

import hashlib
import json
import random

import galip_runtime
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused
from galip_runtime.bundle.canonical import manifest_text
from galip_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from stub_bundle import make_stub_bundle, restate


@pytest.fixture(scope="module")
def text(shared_bundle):
    return (shared_bundle / MANIFEST_NAME).read_bytes()


@pytest.fixture
def old(bundle):
    """The stub bundle as it was before manifests had a digest."""
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    del document["digest"], document["format_revision"]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return bundle


def assert_refused(text):
    with expect_error(FileRefused):
        Manifest.from_json(text)


def test_the_digest_covers_the_text_without_its_own_line(text):
    lines = text.splitlines(keepends=True)
    (line,) = [line for line in lines if line.startswith(b'  "digest"')]
    lines.remove(line)
    assert line == f'  "digest": "{hashlib.sha256(b"".join(lines)).hexdigest()}",\n'.encode()


def test_one_changed_byte_anywhere_is_detected(text):
    rng = random.Random(0)
    for position, byte in enumerate(text):
        for other in (byte ^ 1 << position % 8, byte ^ rng.randrange(1, 256)):
            assert_refused(text[:position] + bytes([other]) + text[position + 1 :])


def test_truncation_anywhere_is_detected(text):
    for end in range(len(text)):
        assert_refused(text[:end])


def test_a_byte_or_line_missing_or_twice_is_detected(text):
    for position in range(0, len(text), 3):
        assert_refused(text[:position] + text[position + 1 :])
        assert_refused(text[:position] + text[position : position + 1] + text[position:])
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        assert_refused(b"".join(lines[:number] + lines[number + 1 :]))
        assert_refused(b"".join([*lines[:number], line, *lines[number:]]))


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
def test_the_same_document_in_another_form_is_detected(text, change):
    changed = change(text)
    assert changed != text
    assert_refused(changed)


def test_every_reader_detects_a_change(bundle):
    path = bundle / MANIFEST_NAME
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"stub": "1"', b'"stub": "3"'))  # a version, which nothing else reads
    for read in (read_manifest, galip_runtime.load):
        with expect_error(FileRefused, path):
            read(bundle)


def test_info_has_the_digest(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    assert galip_runtime.load(bundle, device="cpu").info()["digest"] == document["digest"]


class TestManifestsWithoutADigest:
    def test_load_and_info(self, old):
        assert galip_runtime.load(old, device="cpu").info()["digest"] is None

    def test_writing_one_again_adds_the_digest(self, old, tmp_path):
        other = make_stub_bundle(tmp_path / "other")
        assert read_manifest(old) == read_manifest(other)
        assert read_manifest(old).to_json() == (other / MANIFEST_NAME).read_text()

    def test_a_changed_text_is_detected(self, old):
        text = (old / MANIFEST_NAME).read_bytes()
        Manifest.from_json(text)
        for changed in (text + b" ", text.replace(b"\n", b"\r\n"), json.dumps(json.loads(text)).encode()):
            assert_refused(changed)

    def test_fields_of_later_revisions_are_refused(self, old):
        document = json.loads((old / MANIFEST_NAME).read_text())
        for name in ("format_revision", "later", "dIgest"):
            assert_refused(json.dumps({**document, name: 1}, indent=2, sort_keys=True) + "\n")


def test_text_outside_unicode_is_refused(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    for change in (
        {"model": {"a": "\ud800"}},
        {"model": {"\udfff": 1}},
        {"versions": {"a": "\ud800"}},
        {"later": ["\ud800"]},
    ):
        restate(bundle, {**document, **change})
        with expect_error(FileRefused, bundle / MANIFEST_NAME):
            galip_runtime.load(bundle)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("before", "after"),
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
def test_values_that_would_take_for_ever_are_refused(bundle, before, after):
    path = bundle / MANIFEST_NAME
    path.write_text(path.read_text().replace(f'"stub": {before}', f'"stub": {after}', 1))
    for read in (read_manifest, galip_runtime.load):
        with expect_error(FileRefused, path):
            read(bundle)


def test_keys_with_a_meaning_in_python(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    document["model"] = {"__class__": {"__init__": [1]}, "__dict__": None}
    document["__class__"] = document["dimensions"]["__class__"] = "Manifest"
    restate(bundle, document)
    assert galip_runtime.load(bundle, device="cpu").info()["model"] == document["model"]


def test_the_text_does_not_depend_on_the_old_digest(bundle):
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    assert manifest_text({**document, "digest": 1}) == manifest_text(document)
