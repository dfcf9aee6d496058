"""A graph is hashed once, and again whenever its file has changed."""

import logging
import os
import shutil
import time
from pathlib import Path

import galip_runtime
import galip_runtime.cache as cache_module
import pytest
from galip_runtime import FileRefused, loading
from galip_runtime.bundle import hash_cache
from galip_runtime.bundle.hash_cache import HashCache
from galip_runtime.bundle.manifest import file_signature, read_manifest
from galip_runtime.cache import cache_folder

GRAPHS = {"text_encoder.onnx", "generator.onnx"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "_MIN_AGE", 0)
    cache_module._reasons.clear()
    return cache_folder("verified")


@pytest.fixture
def hashed(bundle, monkeypatch):
    """A load, and which graphs it hashed."""
    found = []
    original = loading.verify_files

    def record(path, manifest, names):
        found.append(set(names))
        original(path, manifest, names)

    monkeypatch.setattr(loading, "verify_files", record)

    def load(path=bundle, **options):
        galip_runtime.load(path, device="cpu", **options)
        return found[-1] & {f"{name}.onnx" for name in ("text_encoder", "generator", "generator.w16a32")}

    return load


def test_once(cache, hashed):
    assert hashed() == GRAPHS
    assert hashed() == set()
    assert len(list(cache.iterdir())) == 2
    assert {path.stat().st_size for path in cache.iterdir()} == {0}


def test_what_changed_is_hashed_again(cache, bundle, hashed):
    hashed()
    path = bundle / "generator.onnx"
    times, data = path.stat(), path.read_bytes()
    path.write_bytes(data)
    assert hashed() == {path.name}
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FileRefused, match=r"generator\.onnx .*sha256"):
        hashed()
    with pytest.raises(FileRefused, match=r"generator\.onnx .*sha256"):  # it was not taken for verified
        hashed()


def test_a_copy_is_hashed(cache, bundle, hashed, tmp_path):
    hashed()
    shutil.copytree(bundle, tmp_path / "copy", copy_function=shutil.copy2)
    assert hashed(tmp_path / "copy") == GRAPHS
    (tmp_path / "moved").mkdir()
    os.rename(bundle, tmp_path / "moved" / "bundle")
    assert hashed(tmp_path / "moved" / "bundle") == GRAPHS


def test_another_sha256_asked_for_is_another_file(cache, bundle):
    path = bundle / "generator.onnx"
    known = HashCache(cache)
    known.add(path, file_signature(path), "0" * 64)
    known.add(path, file_signature(path), "0" * 64)
    assert known.has(path, file_signature(path), "0" * 64)
    assert not known.has(path, file_signature(path), "1" * 64)
    assert not HashCache(cache.parent / "other").has(path, file_signature(path), "0" * 64)


def test_a_file_just_written_is_not_trusted_yet(cache, hashed, monkeypatch):
    monkeypatch.setattr(hash_cache, "_MIN_AGE", 3600)
    assert hashed() == hashed() == GRAPHS
    assert list(cache.iterdir()) == []


def test_one_that_changed_while_it_was_loaded_is_not_kept(cache, bundle, hashed, monkeypatch):
    original = loading._start

    def touch_before(*arguments):
        os.utime(bundle / "generator.onnx")
        return original(*arguments)

    monkeypatch.setattr(loading, "_start", touch_before)
    with pytest.raises(FileRefused, match="written while it was loaded"):
        hashed()
    monkeypatch.setattr(loading, "_start", original)
    assert "generator.onnx" in hashed()


def test_a_cache_that_cannot_be_used(cache, hashed, caplog):
    cache.rmdir()
    cache.touch()  # a file where the folder should be
    assert hashed() == hashed() == GRAPHS
    assert caplog.text.count("nothing is kept") == 1


def test_a_disk_that_is_full(cache, bundle, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO, "galip_runtime")
    path, known = bundle / "generator.onnx", HashCache(cache)
    monkeypatch.setattr(hash_cache.os, "open", full)
    known.add(path, file_signature(path), "0" * 64)
    monkeypatch.undo()
    assert str(bundle) in caplog.text
    assert not known.has(path, file_signature(path), "0" * 64)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("forged", ["by another", "in a folder for all", "a link", "for all to write"])
def test_what_others_may_have_put_there_is_not_trusted(cache, bundle, hashed, forged, monkeypatch):
    """A marker for an altered graph, by whoever knows its name."""
    path = bundle / "generator.onnx"
    sha256 = read_manifest(bundle).files[path.name].sha256
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    marker = cache / hash_cache._name(path, file_signature(path), sha256)
    marker.touch(mode=0o600)
    assert HashCache(cache).has(path, file_signature(path), sha256)
    if forged == "by another":
        monkeypatch.setattr(os, "geteuid", lambda: marker.stat().st_uid + 1)
        assert not HashCache(cache).has(path, file_signature(path), sha256)
    elif forged == "in a folder for all":
        cache.chmod(0o777)
    elif forged == "a link":
        marker.rename(cache / "elsewhere")
        marker.symlink_to("elsewhere")
    else:
        marker.chmod(0o666)
    with pytest.raises(FileRefused, match=r"generator\.onnx .*sha256"):
        hashed()


def test_no_more_than_so_many_are_kept(cache, bundle, monkeypatch):
    monkeypatch.setattr(hash_cache, "_MAX_ENTRIES", 3)
    path, known = bundle / "generator.onnx", HashCache(cache)
    for number in range(6):
        known.add(path, file_signature(path), str(number))
        time.sleep(0.02)
    assert [known.has(path, file_signature(path), str(number)) for number in range(6)] == [False] * 3 + [
        True
    ] * 3


def test_a_place_with_an_odd_name(cache, bundle, hashed, tmp_path):
    strange = tmp_path / "пакет 🍎 \n"
    shutil.copytree(bundle, strange)
    assert hashed(strange) == GRAPHS
    assert hashed(strange) == set()


def test_a_name_that_is_no_text():
    path = Path(os.fsdecode(b"\xff"))
    assert HashCache(None).has(path, (0,), "") is False
    assert len(hash_cache._name(path, (0,), "")) == 64
