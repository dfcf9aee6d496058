"""Files that are read only if they are regular, and written whole or not at all."""

import os
import socket
import subprocess
import sys

import pytest
from error_checks import expect_error
from galip_runtime import files
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import (
    check_writable,
    open_regular,
    read_regular,
    remove_leftovers,
    staged_file,
    staging_folder,
    write_atomically,
)

KILLED = """
import os, signal, sys
from galip_runtime.files import staging_folder
with staging_folder(sys.argv[1]) as folder:
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _irregular_file(folder, kind):
    path = folder / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to("odd")
    return path


class TestReading:
    def test_a_file_and_a_link_to_it(self, tmp_path):
        (tmp_path / "a").write_bytes(b"abc")
        (tmp_path / "link").symlink_to("a")
        assert read_regular(tmp_path / "a", 3) == read_regular(str(tmp_path / "link"), 3) == b"abc"
        with open_regular(tmp_path / "a") as file:
            assert file.read() == b"abc"

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("kind", ["pipe", "socket", "endless", "folder", "dangling", "loop", "missing"])
    def test_an_irregular_file_is_refused_without_waiting(self, tmp_path, kind):
        path = _irregular_file(tmp_path, kind)
        with expect_error(FileRefused, path):
            read_regular(path, 100)

    @pytest.mark.parametrize("name", ["nul\0", "a" * 300, "no/such"])
    def test_an_impossible_name_is_refused(self, tmp_path, name):
        with expect_error(FileRefused, tmp_path / name):
            open_regular(tmp_path / name)

    def test_a_file_over_the_limit_is_refused_without_reading_it(self, tmp_path):
        with open(tmp_path / "sparse", "wb") as file:
            file.truncate(2**40)
        with expect_error(FileRefused, tmp_path / "sparse", 2**40, 100):
            read_regular(tmp_path / "sparse", 100)

    def test_a_refused_file_is_closed(self, tmp_path):
        before = len(os.listdir("/dev/fd"))
        for _ in range(3):
            with expect_error(FileRefused, tmp_path):
                open_regular(tmp_path)
        assert len(os.listdir("/dev/fd")) == before


class TestWriting:
    @pytest.mark.parametrize("length", [1, 240, 255])
    def test_names_up_to_the_system_s_limit(self, tmp_path, length):
        target = tmp_path / ("a" * length)
        check_writable(target)
        write_atomically(target, b"new")
        assert target.read_bytes() == b"new"
        assert os.listdir(tmp_path) == [target.name]

    @pytest.mark.parametrize("name", ["a" * 256, "nul\0", "none/a", "file/a", "pipe", "folder", "loop"])
    def test_impossible_targets_are_refused_beforehand(self, tmp_path, name):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "pipe")
        before = sorted(os.listdir(tmp_path))
        with expect_error(UsageError, tmp_path / "none" if name == "none/a" else tmp_path / name):
            check_writable(tmp_path / name)
        assert sorted(os.listdir(tmp_path)) == before

    @pytest.mark.parametrize("name", ["pipe", "folder", "device"])
    def test_only_regular_files_are_replaced(self, tmp_path, name):
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "device").symlink_to("/dev/null")
        before = os.stat(tmp_path / name)
        with expect_error(UsageError, "/dev/null" if name == "device" else tmp_path / name):
            write_atomically(tmp_path / name, b"new")
        assert os.stat(tmp_path / name).st_mode == before.st_mode

    @pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder where even root cannot write")
    def test_a_folder_without_permission_to_write_is_refused(self):
        with expect_error(UsageError, "/proc/a"):
            check_writable("/proc/a")
        with expect_error(UsageError, "/proc/a"):
            write_atomically("/proc/a", b"x")

    def test_a_link_stays_and_its_target_is_replaced(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real/a")
        write_atomically(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "a").read_bytes() == b"new"

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_text("old")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "replace", full)
        with expect_error(UsageError, tmp_path / "a", "No space left on device"):  # the system's words
            write_atomically(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")], ids=["Ctrl-C", "a bug"])
    def test_an_exception_within_the_block_leaves_the_old_file(self, tmp_path, error):
        def write():
            with staged_file(tmp_path / "a") as temporary:
                temporary.write_text("half")
                raise error

        (tmp_path / "a").write_text("old")
        with pytest.raises(type(error)):
            write()
        assert (tmp_path / "a").read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(files.fcntl is None, reason="needs locks on folders")
class TestLeftovers:
    def test_of_a_killed_process_are_removed(self, tmp_path):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
        (leftover,) = tmp_path.iterdir()
        assert (leftover / "half").exists()
        remove_leftovers(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_of_a_living_process_stay(self, tmp_path):
        with staging_folder(tmp_path) as folder:
            remove_leftovers(tmp_path)
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"from galip_runtime.files import *; remove_leftovers({str(tmp_path)!r})",
                ],
                timeout=60,
                check=True,
            )
            assert folder.is_dir()
        assert not folder.exists()

    def test_other_files_and_the_targets_of_links_stay(self, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "mine").touch()
        parent = tmp_path / "parent"
        parent.mkdir()
        (parent / ".galip-0123456789ab").symlink_to(elsewhere)
        (parent / ".galip-mine").mkdir()
        (parent / ".galip-0123456789ac").touch()
        remove_leftovers(parent)
        assert len(list(parent.iterdir())) == 3
        assert (elsewhere / "mine").exists()

    def test_a_missing_folder_is_no_error(self, tmp_path):
        remove_leftovers(tmp_path / "missing")
