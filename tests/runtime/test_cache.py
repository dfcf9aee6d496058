"""The cache folder: where it is, and that galip uses it only where nobody else can write to it."""

import logging
import os

import galip_runtime
import pytest
from error_checks import expect_error, warnings_of
from galip_runtime import cache
from galip_runtime.cache import cache_folder, optional_cache
from galip_runtime.errors import UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
NOBODY = 65534


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A home folder, and no variable that names another cache."""
    for name in ("GALIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    cache._reasons.clear()


@posix
@pytest.mark.parametrize(
    ("variables", "location"),
    [
        ({}, "home/.cache/galip/a"),
        ({"XDG_CACHE_HOME": "xdg"}, "home/.cache/galip/a"),  # relative: the standard says to pass over it
        ({"XDG_CACHE_HOME": ""}, "home/.cache/galip/a"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/galip/a"),
        ({"XDG_CACHE_HOME": "~/xdg"}, "home/xdg/galip/a"),
        ({"GALIP_CACHE": ""}, "home/.cache/galip/a"),
        ({"GALIP_CACHE": "{}/own/ü 🍎", "XDG_CACHE_HOME": "{}/xdg"}, "own/ü 🍎/a"),
        ({"GALIP_CACHE": "own"}, "own/a"),
        ({"GALIP_CACHE": "~/own/"}, "home/own/a"),
    ],
)
def test_location_from_the_environment(tmp_path, monkeypatch, variables, location):
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    folder = cache_folder("a")
    assert folder == optional_cache("a") == tmp_path / location
    while folder not in (tmp_path, tmp_path / "home"):
        assert folder.stat().st_mode & 0o777 == 0o700
        folder = folder.parent


def _unusable_path(tmp_path, kind):
    path = tmp_path / "path"
    if kind == "a file":
        path.write_text("mine")
    elif kind == "below a file":
        path.write_text("mine")
        return path / "cache"
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a dangling link":
        path.symlink_to("nowhere")
    elif kind == "a loop of links":
        path.symlink_to("path")
    elif kind == "below /proc":
        return "/proc/nope"
    elif kind == "a long name":
        return tmp_path / ("x" * 300)
    elif kind == "a long path":
        return f"{tmp_path}/{'x/' * 3000}"
    return path


KINDS = [
    "a file", "below a file", "a pipe", "a dangling link", "a loop of links", "below /proc",
    "a long name", "a long path",
]  # fmt: skip


@posix
@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_cache_is_ignored_with_one_warning(tmp_path, bundle, monkeypatch, caplog, kind, device):
    monkeypatch.setenv("GALIP_CACHE", str(_unusable_path(tmp_path, kind)))
    with expect_error(UsageError, "GALIP_CACHE"):
        cache_folder("a")
    for _ in range(2):
        assert galip_runtime.load(bundle, device=device).generate("red", 1).shape == (1, 8, 8, 3)
    (warning,) = warnings_of(caplog)
    assert "GALIP_CACHE" in warning
    assert optional_cache("a") is None


@posix
@pytest.mark.parametrize("home", ["", "nowhere", "/nonexistent", "~"])
def test_without_a_home_folder(bundle, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", home))
    with expect_error(UsageError, "GALIP_CACHE"):
        cache_folder()
    assert galip_runtime.load(bundle, device="openvino").generate("red", 1).shape == (1, 8, 8, 3)
    assert not os.path.exists("/nonexistent")


def test_a_path_with_a_nul_is_ignored(monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "GALIP_CACHE": "a\0b"})
    assert optional_cache("a") is None


def test_the_reason_is_logged_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert [optional_cache("a") for _ in range(3)] == [None] * 3
    (warning,) = warnings_of(caplog)
    assert str(tmp_path / "file") in warning


@posix
class TestFoldersOfOthers:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
        assert cache_folder("a") == tmp_path / "cache" / "a"
        return tmp_path / "cache"

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o720, 0o702, 0o1777])
    @pytest.mark.parametrize("name", [".", "a"])
    def test_a_folder_that_others_may_write_to_is_not_used(self, cache, name, mode):
        (cache / name).chmod(mode)
        assert optional_cache("a") is None
        (cache / name).chmod(0o755)
        assert optional_cache("a") == cache / "a"

    def test_a_folder_of_another_user_is_refused(self, cache, monkeypatch):
        cache_folder("a")
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        with expect_error(UsageError, cache, "GALIP_CACHE"):
            cache_folder("a")

    @pytest.mark.parametrize(("mode", "trusted"), [(0o777, False), (0o1777, True), (0o775, True)])
    def test_a_folder_that_others_may_rename_is_not_used(self, tmp_path, cache, mode, trusted):
        tmp_path.chmod(mode)
        assert (optional_cache("a") is not None) == trusted

    def test_no_folder_is_created_where_everybody_may_write(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "new"))
        tmp_path.chmod(0o777)
        assert optional_cache("a") is None
        assert not (tmp_path / "new").exists()

    def test_the_target_of_a_link_is_checked_too(self, tmp_path, cache, monkeypatch):
        (tmp_path / "open").mkdir()
        cache.rename(tmp_path / "open" / "cache")
        (tmp_path / "link").symlink_to("open/cache")
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "link"))
        assert optional_cache("a") is not None
        (tmp_path / "open").chmod(0o777)
        assert optional_cache("a") is None


@posix
@pytest.mark.parametrize("variable", ["HOME", "GALIP_CACHE", "XDG_CACHE_HOME"])
def test_a_folder_without_permission_to_enter(tmp_path, monkeypatch, variable):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0)
    monkeypatch.setenv(variable, str(folder / "a"))
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:  # who may enter anything
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        os._exit(0 if optional_cache("a") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    folder.chmod(0o700)
