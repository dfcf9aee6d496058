"""Cached files: galip reads one only if it is whole and this user's own."""

import os
import random
import subprocess
import sys

import pytest
from error_checks import expect_error, warnings_of
from galip_runtime import FileRefused, cache
from galip_runtime.cache import HEADER_SIZE, open_cached, open_own, write_cached

DATA = random.Random(0).randbytes(5000)


@pytest.fixture(autouse=True)
def no_reason_logged_yet():
    cache._reasons.clear()


@pytest.fixture
def path(tmp_path):
    write_cached(tmp_path / "blob", DATA)
    return tmp_path / "blob"


def read(path):
    file = open_cached(path)
    if file is None:
        return None
    with file:
        assert file.tell() == HEADER_SIZE
        return file.read()


@pytest.mark.parametrize("data", [b"", b"a", DATA, memoryview(DATA)], ids=len)
def test_round_trip(tmp_path, data):
    assert read(tmp_path / "blob") is None
    write_cached(tmp_path / "blob", data)
    assert read(tmp_path / "blob") == bytes(data)
    assert (tmp_path / "blob").stat().st_size == HEADER_SIZE + len(data)
    write_cached(tmp_path / "blob", b"other")
    assert read(tmp_path / "blob") == b"other"
    assert os.listdir(tmp_path) == ["blob"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_only_this_user_may_read_and_write_it(path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_changed_bit_anywhere_is_detected(path, caplog):
    whole = path.read_bytes()
    for position in [*range(80), *range(80, len(whole), 97), len(whole) - 1]:
        changed_byte = bytes([whole[position] ^ 1 << position % 8])
        path.write_bytes(whole[:position] + changed_byte + whole[position + 1 :])
        caplog.clear()
        assert read(path) is None
        assert not path.exists()
        (warning,) = warnings_of(caplog)
        assert str(path) in warning


@pytest.mark.parametrize(
    "size", [0, 1, 64, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1, HEADER_SIZE + len(DATA) - 1]
)
def test_a_truncated_file_is_detected(path, size):
    os.truncate(path, size)
    assert read(path) is None


@pytest.mark.parametrize(
    "change", [lambda d: bytes(len(d)), lambda d: d + b"\0", lambda d: d[:-4096] + bytes(4096)]
)
def test_zeros_and_additional_bytes_are_detected(path, change):
    path.write_bytes(change(path.read_bytes()))
    assert read(path) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has other kinds of files")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "dangling", "loop", "pipe", "folder", "group", "all", "other"])
def test_a_file_that_others_may_have_written_is_not_read(path, tmp_path, kind, monkeypatch):
    if kind in ("group", "all"):
        path.chmod(0o620 if kind == "group" else 0o606)
    elif kind != "other":
        path.rename(tmp_path / "whole")
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"link": "whole", "dangling": "nowhere", "loop": "blob"}[kind])
    with monkeypatch.context() as patch:
        if kind == "other":
            patch.setattr(os, "geteuid", lambda: path.lstat().st_uid + 1)
        with expect_error(FileRefused, path):
            open_own(path)
        assert read(path) is None
    write_cached(path, b"new")  # which replaces the link itself, not its target
    assert read(path) == (None if kind == "folder" else b"new")
    if kind == "link":
        assert read(tmp_path / "whole") == DATA


def test_a_missing_folder(tmp_path, caplog):
    blob = tmp_path / "none" / "blob"
    write_cached(blob, DATA)
    (warning,) = warnings_of(caplog)
    assert str(blob) in warning
    assert read(blob) is None


def test_a_failing_disk(path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cache, "_is_whole", fail)
    assert read(path) is None
    monkeypatch.setattr(cache.os, "fsync", fail)
    write_cached(path, DATA)
    of_reading, of_writing = warnings_of(caplog)
    assert "Input/output error" in of_reading
    assert str(path) in of_writing
    assert "Input/output error" in of_writing
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.name == "nt", reason="needs locks on folders")
def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    code = """
import os, pathlib, signal, sys
from galip_runtime import cache
cache.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
cache.write_cached(pathlib.Path(sys.argv[1]), b"data")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "blob")], timeout=60, check=False)
    assert len(os.listdir(tmp_path)) == 1
    assert read(tmp_path / "blob") is None
    write_cached(tmp_path / "blob", b"new")
    assert os.listdir(tmp_path) == ["blob"]
