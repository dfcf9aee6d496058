"""A bundle's folder under kills, mount points and read-only folders. No graph is exported."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest
from galip_export import staging
from galip_export.staging import staged_bundle, write
from galip_runtime.bundle.manifest import read_manifest, verify_files
from galip_runtime.errors import FileRefused, UsageError
from stub_bundle import make_stub_bundle

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")
OLD, NEW = {"made": "before"}, {"made": "now"}


@pytest.fixture
def old(tmp_path):
    """A bundle in place, with a file that the new one does not have."""
    return make_stub_bundle(tmp_path / "here" / "bundle", precisions=("fp32", "w16a32"), parity=OLD)


@pytest.fixture
def new(tmp_path):
    return make_stub_bundle(tmp_path / "source", precisions=("fp32", "fp16"), parity=NEW)


def export(source, out, overwrite=True):
    with staged_bundle(out, overwrite=overwrite, size=1) as folder:
        for file in source.iterdir():
            write(folder / file.name, file.read_bytes())


def state_of(bundle):
    """ "old" or "new", of a bundle that is whole. Raises FileRefused."""
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    return "new" if "fp16" in manifest.graphs["generator"] else "old"


def killed_at(step, source, out):
    """Export in a process that is killed before its call number `step` that opens a file or changes a folder.
    Returns False if it finishes before.
    """
    process = os.fork()
    if process == 0:
        calls = iter(range(1, 1000))

        def counted(function):
            def call(*arguments, **options):
                if next(calls) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open"):
            setattr(os, name, counted(getattr(os, name)))
        staging._exchange = counted(staging._exchange)
        try:
            export(source, out)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("way", ["swapped", "renamed twice", "file by file"])
def test_killed_at_any_step(old, new, tmp_path, monkeypatch, way):
    if way == "renamed twice":
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    if way == "file by file":
        monkeypatch.setattr(staging, "_is_renamable", lambda out: False)
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    states, step = set(), 1
    while killed_at(step, new, old):
        try:
            states.add(state_of(old))
        except FileRefused:
            states.add("refused")
        export(copy, old)
        assert os.listdir(old.parent) == ["bundle"]
        assert sorted(os.listdir(old)) == sorted(os.listdir(copy))
        assert state_of(old) == "old"
        step += 1
    assert step > 10
    assert states == ({"old", "new"} if way == "swapped" else {"old", "new", "refused"})
    assert state_of(old) == "new"


def test_a_new_bundle_appears_whole_or_not_at_all(new, tmp_path):
    out, step = tmp_path / "here" / "bundle", 1
    while killed_at(step, new, out):
        if out.exists():
            assert state_of(out) == "new"
            shutil.rmtree(out)
        step += 1
    assert step > 5
    assert os.listdir(out.parent) == ["bundle"]
    assert state_of(out) == "new"


def test_the_bundle_that_was_set_aside_is_put_back(old, new, monkeypatch):
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    aside = staging._set_aside(old)
    os.rename(old, aside)
    with pytest.raises(UsageError, match=re.escape(str(old))):
        export(new, old, overwrite=False)
    assert state_of(old) == "old"
    os.rename(old, aside)
    export(new, old)
    assert state_of(old) == "new"
    assert os.listdir(old.parent) == ["bundle"]


@pytest.mark.parametrize("renamable", [True, False])
def test_exports_at_once_leave_one_of_them_whole(old, new, tmp_path, monkeypatch, renamable):
    if not renamable:
        monkeypatch.setattr(staging, "_is_renamable", lambda out: False)
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    ready = threading.Barrier(4)
    failures = []

    def run(source):
        try:
            with staged_bundle(old, overwrite=True, size=1) as folder:
                for file in source.iterdir():
                    write(folder / file.name, file.read_bytes())
                ready.wait()
        except UsageError as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[source]) for source in (copy, new, copy, new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) < 4
    assert state_of(old) in ("old", "new")
    assert os.listdir(old.parent) == ["bundle"]
    assert sorted(os.listdir(old)) == sorted(["manifest.json", *read_manifest(old).files])


def test_another_export_comes_between_check_and_rename(old, new, tmp_path, monkeypatch):
    out, check, calls = tmp_path / "here" / "other", staging.check_target, []

    def check_then_copy(*arguments):
        check(*arguments)
        calls.append(arguments)
        if len(calls) == 2:  # the second check is the last before `out` is put in place
            shutil.copytree(old, out)

    monkeypatch.setattr(staging, "check_target", check_then_copy)
    with pytest.raises(UsageError, match=re.escape(str(out))):
        export(new, out, overwrite=False)
    assert state_of(out) == "old"


def test_a_living_export_s_folder_stays(old, new):
    with staged_bundle(old, overwrite=True, size=1) as folder:
        export(new, old)
        assert folder.is_dir()
        shutil.copytree(new, folder, dirs_exist_ok=True)
    assert os.listdir(old.parent) == ["bundle"]


def test_the_working_folder_keeps_its_inode(old, new, monkeypatch):
    monkeypatch.chdir(old)
    inode = old.stat().st_ino
    export(new, old)
    assert (state_of(old), old.stat().st_ino) == ("new", inode)
    assert os.listdir(old.parent) == ["bundle"]


def as_another_user(source, out):
    """Export as a user whom root's rights do not help; the exit code, 0 for done and 1 for refused."""
    process = os.fork()
    if process == 0:
        code = 2
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            export(source, out)
            code = 0
        except UsageError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def open_to_all(tmp_path):
    """A function that lets everybody reach a path, and change it if `writable`."""

    def reach(path, writable):
        for folder in path.parents:
            if folder.owner() == tmp_path.owner() and folder != folder.parent:
                folder.chmod(folder.stat().st_mode | 0o055)
        path.chmod(0o777 if writable else 0o555)

    return reach


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_above_that_is_read_only(old, new, open_to_all, empty):
    if empty:
        shutil.rmtree(old)
        old.mkdir()
    open_to_all(old, writable=True)
    old.parent.chmod(0o555)
    assert as_another_user(new, old) == 0
    assert state_of(old) == "new"
    assert sorted(os.listdir(old)) == sorted(["manifest.json", *read_manifest(old).files])


def test_a_folder_that_cannot_be_listed_is_not_replaced(old, new, open_to_all):
    open_to_all(old, writable=True)
    (old / "mine.txt").write_text("three years")
    old.parent.chmod(0o777)
    old.chmod(0o300 if os.getuid() else 0o333)
    assert as_another_user(new, old) == 1
    old.chmod(0o755)
    assert (old / "mine.txt").read_text() == "three years"


@pytest.mark.parametrize("kind", ["another file system", "the same file system"])
def test_a_mount_point(old, new, tmp_path, kind):
    """What `docker run -v ./out:/out` gives: a folder that no other can be renamed over."""
    out, inside = tmp_path / "out", tmp_path / "inside"
    out.mkdir()
    inside.mkdir()
    mount = f"mount -t tmpfs tmpfs {out}" if kind == "another file system" else f"mount --bind {inside} {out}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    process = os.fork()
    if process == 0:
        code = 1
        try:
            ctypes.CDLL(None).unshare(0x00020000)  # CLONE_NEWNS
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(mount.split(), check=True)
            for source in (old, new):
                export(source, out)
                assert state_of(out) == source.name.replace("bundle", "old").replace("source", "new")
                assert sorted(os.listdir(out)) == sorted(["manifest.json", *read_manifest(out).files])
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert sorted(os.listdir(tmp_path)) == ["here", "inside", "out", "source"]
