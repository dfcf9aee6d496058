import os
import socket
import subprocess
import sys

import pytest
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


def _odd(folder, kind):
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
    def test_reads_a_file_and_one_that_a_link_leads_to(self, tmp_path):
        (tmp_path / "a").write_bytes(b"abc")
        (tmp_path / "link").symlink_to("a")
        assert read_regular(tmp_path / "a", 3) == read_regular(str(tmp_path / "link"), 3) == b"abc"
        with open_regular(tmp_path / "a") as file:
            assert file.read() == b"abc"

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("kind", ["pipe", "socket", "endless", "folder", "dangling", "loop", "missing"])
    def test_refuses_what_is_not_a_regular_file_without_waiting(self, tmp_path, kind):
        with pytest.raises(FileRefused, match="odd"):
            read_regular(_odd(tmp_path, kind), 100)

    @pytest.mark.parametrize("name", ["nul\0", "a" * 300, "no/such"])
    def test_refuses_names_that_cannot_be(self, tmp_path, name):
        with pytest.raises(FileRefused):
            open_regular(tmp_path / name)

    def test_refuses_a_file_that_is_too_large_without_reading_it(self, tmp_path):
        with open(tmp_path / "sparse", "wb") as file:
            file.truncate(2**40)
        with pytest.raises(FileRefused):
            read_regular(tmp_path / "sparse", 100)

    def test_leaves_no_descriptor_open(self, tmp_path):
        before = len(os.listdir("/dev/fd"))
        for _ in range(3):
            with pytest.raises(FileRefused):
                open_regular(tmp_path)
        assert len(os.listdir("/dev/fd")) == before


class TestWriting:
    @pytest.mark.parametrize("length", [1, 240, 255])
    def test_any_name_that_the_system_takes(self, tmp_path, length):
        target = tmp_path / ("a" * length)
        check_writable(target)
        write_atomically(target, b"new")
        assert target.read_bytes() == b"new"
        assert os.listdir(tmp_path) == [target.name]

    @pytest.mark.parametrize("name", ["a" * 256, "nul\0", "none/a", "file/a", "pipe", "folder", "loop"])
    def test_targets_that_cannot_be_are_known_before(self, tmp_path, name):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "pipe")
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(UsageError):
            check_writable(tmp_path / name)
        assert sorted(os.listdir(tmp_path)) == before

    @pytest.mark.parametrize("name", ["pipe", "folder", "device"])
    def test_what_is_no_file_is_never_replaced(self, tmp_path, name):
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "device").symlink_to("/dev/null")
        before = os.stat(tmp_path / name)
        with pytest.raises(UsageError):
            write_atomically(tmp_path / name, b"new")
        assert os.stat(tmp_path / name).st_mode == before.st_mode

    @pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder where even root cannot write")
    def test_a_folder_that_cannot_be_written_is_refused(self):
        with pytest.raises(UsageError):
            check_writable("/proc/a")
        with pytest.raises(UsageError):
            write_atomically("/proc/a", b"x")

    def test_a_link_stays_and_its_file_is_replaced(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real/a")
        write_atomically(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "a").read_bytes() == b"new"

    def test_a_failed_write_leaves_what_was_there(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_text("old")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "replace", full)
        with pytest.raises(UsageError, match="No space left"):
            write_atomically(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")], ids=["Ctrl-C", "a bug"])
    def test_a_block_that_raises_leaves_what_was_there(self, tmp_path, error):
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
        (left,) = tmp_path.iterdir()
        assert (left / "half").exists()
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

    def test_other_files_and_what_links_lead_to_stay(self, tmp_path):
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

    def test_a_folder_that_cannot_be_listed_is_left(self, tmp_path):
        remove_leftovers(tmp_path / "missing")
