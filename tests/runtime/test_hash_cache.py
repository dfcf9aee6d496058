"""The hash cache: a graph is hashed once, and again whenever its file has changed."""

import logging
import os
import shutil
import time
from pathlib import Path

import galip_runtime
import galip_runtime.cache as cache_module
import pytest
from error_checks import assert_names, expect_error, warnings_of
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
    """Return a function that loads the bundle and returns the graphs that were hashed."""
    files = []
    original = loading.verify_files

    def record(path, manifest, names):
        files.append(set(names))
        original(path, manifest, names)

    monkeypatch.setattr(loading, "verify_files", record)

    def load(path=bundle, **options):
        galip_runtime.load(path, device="cpu", **options)
        return files[-1] & {f"{name}.onnx" for name in ("text_encoder", "generator", "generator.w16a32")}

    return load


def test_a_graph_is_hashed_once(cache, hashed):
    assert hashed() == GRAPHS
    assert hashed() == set()
    assert len(list(cache.iterdir())) == 2
    assert {path.stat().st_size for path in cache.iterdir()} == {0}


def test_a_changed_file_is_hashed_again(cache, bundle, hashed):
    hashed()
    path = bundle / "generator.onnx"
    times, data = path.stat(), path.read_bytes()
    path.write_bytes(data)
    assert hashed() == {path.name}
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    sha256 = read_manifest(bundle).files[path.name].sha256
    for _ in range(2):  # the first time did not make it verified
        with expect_error(FileRefused, path, sha256):
            hashed()


def test_a_copy_is_hashed(cache, bundle, hashed, tmp_path):
    hashed()
    shutil.copytree(bundle, tmp_path / "copy", copy_function=shutil.copy2)
    assert hashed(tmp_path / "copy") == GRAPHS
    (tmp_path / "moved").mkdir()
    os.rename(bundle, tmp_path / "moved" / "bundle")
    assert hashed(tmp_path / "moved" / "bundle") == GRAPHS


def test_another_sha256_is_unknown(cache, bundle):
    path = bundle / "generator.onnx"
    hashes = HashCache(cache)
    hashes.add(path, file_signature(path), "0" * 64)
    hashes.add(path, file_signature(path), "0" * 64)
    assert hashes.has(path, file_signature(path), "0" * 64)
    assert not hashes.has(path, file_signature(path), "1" * 64)
    assert not HashCache(cache.parent / "other").has(path, file_signature(path), "0" * 64)


def test_a_file_just_written_is_not_remembered_yet(cache, hashed, monkeypatch):
    monkeypatch.setattr(hash_cache, "_MIN_AGE", 3600)
    assert hashed() == hashed() == GRAPHS
    assert list(cache.iterdir()) == []


def test_a_file_that_changes_during_loading_is_not_remembered(cache, bundle, hashed, monkeypatch):
    original = loading._start

    def touch_before(*arguments):
        os.utime(bundle / "generator.onnx")
        return original(*arguments)

    monkeypatch.setattr(loading, "_start", touch_before)
    with expect_error(FileRefused, bundle / "generator.onnx"):
        hashed()
    monkeypatch.setattr(loading, "_start", original)
    assert "generator.onnx" in hashed()


def test_an_unusable_cache(cache, hashed, caplog):
    cache.rmdir()
    cache.touch()  # a file where the folder should be
    assert hashed() == hashed() == GRAPHS
    (warning,) = warnings_of(caplog)
    assert_names(warning, cache)


def test_a_full_disk(cache, bundle, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO, "galip_runtime")
    path, hashes = bundle / "generator.onnx", HashCache(cache)
    monkeypatch.setattr(hash_cache.os, "open", full)
    hashes.add(path, file_signature(path), "0" * 64)
    monkeypatch.undo()
    assert_names(caplog.text, cache, path, "No space left on device")
    assert not hashes.has(path, file_signature(path), "0" * 64)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("forged", ["by another", "in a folder for all", "a link", "for all to write"])
def test_markers_that_others_may_have_written_are_not_trusted(cache, bundle, hashed, forged, monkeypatch):
    """A marker for an altered graph, by somebody who knows its name."""
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
    with expect_error(FileRefused, path, sha256):
        hashed()


def test_only_the_newest_markers_stay(cache, bundle, monkeypatch):
    monkeypatch.setattr(hash_cache, "_MAX_ENTRIES", 3)
    path, hashes = bundle / "generator.onnx", HashCache(cache)
    for number in range(6):
        hashes.add(path, file_signature(path), str(number))
        time.sleep(0.02)
    known = [hashes.has(path, file_signature(path), str(number)) for number in range(6)]
    assert known == [False] * 3 + [True] * 3


def test_a_path_with_unusual_characters(cache, bundle, hashed, tmp_path):
    strange = tmp_path / "пакет 🍎 \n"
    shutil.copytree(bundle, strange)
    assert hashed(strange) == GRAPHS
    assert hashed(strange) == set()


def test_a_path_outside_unicode():
    path = Path(os.fsdecode(b"\xff"))
    assert HashCache(None).has(path, (0,), "") is False
    assert len(hash_cache._name(path, (0,), "")) == 64
