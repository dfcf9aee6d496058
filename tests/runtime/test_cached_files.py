"""What is kept is read if it is whole and this user's own."""

import os
import random
import subprocess
import sys

import pytest
from galip_runtime import FileRefused, cache
from galip_runtime.cache import HEADER_SIZE, open_cached, open_own, write_cached

DATA = random.Random(0).randbytes(5000)


@pytest.fixture(autouse=True)
def nothing_said():
    cache._reasons.clear()


@pytest.fixture
def path(tmp_path):
    write_cached(tmp_path / "kept", DATA)
    return tmp_path / "kept"


def read(path):
    file = open_cached(path)
    if file is None:
        return None
    with file:
        assert file.tell() == HEADER_SIZE
        return file.read()


@pytest.mark.parametrize("data", [b"", b"a", DATA, memoryview(DATA)], ids=len)
def test_is_read_as_it_was_written(tmp_path, data):
    assert read(tmp_path / "kept") is None
    write_cached(tmp_path / "kept", data)
    assert read(tmp_path / "kept") == bytes(data)
    assert (tmp_path / "kept").stat().st_size == HEADER_SIZE + len(data)
    write_cached(tmp_path / "kept", b"other")
    assert read(tmp_path / "kept") == b"other"
    assert os.listdir(tmp_path) == ["kept"]


def test_is_this_user_s_alone(path):
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_bit_that_changed_anywhere_is_noticed(path, caplog):
    whole = path.read_bytes()
    for place in [*range(80), *range(80, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert read(path) is None
        assert not path.exists()
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "size", [0, 1, 64, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1, HEADER_SIZE + len(DATA) - 1]
)
def test_one_cut_short_is_noticed(path, size):
    os.truncate(path, size)
    assert read(path) is None


@pytest.mark.parametrize(
    "change", [lambda d: bytes(len(d)), lambda d: d + b"\0", lambda d: d[:-4096] + bytes(4096)]
)
def test_zeros_and_more_are_noticed(path, change):
    path.write_bytes(change(path.read_bytes()))
    assert read(path) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has other kinds of files")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "dangling", "loop", "pipe", "folder", "group", "all", "other"])
def test_what_may_be_another_s_is_not_read(path, tmp_path, kind, monkeypatch):
    if kind in ("group", "all"):
        path.chmod(0o620 if kind == "group" else 0o606)
    elif kind != "other":
        path.rename(tmp_path / "whole")
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"link": "whole", "dangling": "nowhere", "loop": "kept"}[kind])
    with monkeypatch.context() as patch:
        if kind == "other":
            patch.setattr(os, "geteuid", lambda: path.lstat().st_uid + 1)
        with pytest.raises(FileRefused, match="kept"):
            open_own(path)
        assert read(path) is None
    write_cached(path, b"new")  # which replaces it, and not what a link leads to
    assert read(path) == (None if kind == "folder" else b"new")
    if kind == "link":
        assert read(tmp_path / "whole") == DATA


def test_a_folder_that_is_not_there(tmp_path, caplog):
    write_cached(tmp_path / "none" / "kept", DATA)
    assert "nothing is kept" in caplog.text
    assert read(tmp_path / "none" / "kept") is None


def test_a_disk_that_fails(path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cache, "_is_whole", fail)
    assert read(path) is None
    monkeypatch.setattr(cache.os, "fsync", fail)
    write_cached(path, DATA)
    assert caplog.text.count("Input/output error") == 2
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.name == "nt", reason="needs locks on folders")
def test_a_kill_while_it_is_written_leaves_nothing_for_long(tmp_path):
    code = """
import os, pathlib, signal, sys
from galip_runtime import cache
cache.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
cache.write_cached(pathlib.Path(sys.argv[1]), b"data")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "kept")], timeout=60, check=False)
    assert len(os.listdir(tmp_path)) == 1
    assert read(tmp_path / "kept") is None
    write_cached(tmp_path / "kept", b"new")
    assert os.listdir(tmp_path) == ["kept"]
