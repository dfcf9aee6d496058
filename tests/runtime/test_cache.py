"""The cache is where it should be, and is used only where nobody else could have put something into it."""

import logging
import os

import galip_runtime
import pytest
from galip_runtime import cache
from galip_runtime.cache import cache_folder, optional_cache
from galip_runtime.errors import UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
NOBODY = 65534


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A home, and no other wishes."""
    for name in ("GALIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    cache._reasons.clear()


@posix
@pytest.mark.parametrize(
    ("variables", "place"),
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
def test_where_it_is(tmp_path, monkeypatch, variables, place):
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    folder = cache_folder("a")
    assert folder == optional_cache("a") == tmp_path / place
    while folder not in (tmp_path, tmp_path / "home"):
        assert folder.stat().st_mode & 0o777 == 0o700
        folder = folder.parent


def _make(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("mine")
    elif kind == "below a file":
        place.write_text("mine")
        return place / "cache"
    elif kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a dangling link":
        place.symlink_to("nowhere")
    elif kind == "a loop of links":
        place.symlink_to("place")
    elif kind == "where nothing can be":
        return "/proc/nope"
    elif kind == "a long name":
        return tmp_path / ("x" * 300)
    elif kind == "a long path":
        return f"{tmp_path}/{'x/' * 3000}"
    return place


KINDS = [
    "a file", "below a file", "a pipe", "a dangling link", "a loop of links", "where nothing can be",
    "a long name", "a long path",
]  # fmt: skip


@posix
@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_that_cannot_be_is_none(tmp_path, bundle, monkeypatch, caplog, kind, device):
    monkeypatch.setenv("GALIP_CACHE", str(_make(tmp_path, kind)))
    with pytest.raises(UsageError, match="GALIP_CACHE"):
        cache_folder("a")
    for _ in range(2):
        assert galip_runtime.load(bundle, device=device).generate("red", 1).shape == (1, 8, 8, 3)
    assert caplog.text.count("nothing is kept") == 1
    assert optional_cache("a") is None


@posix
@pytest.mark.parametrize("home", ["", "nowhere", "/nonexistent", "~"])
def test_no_home(bundle, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", home))
    with pytest.raises(UsageError, match=r"no home folder.*GALIP_CACHE"):
        cache_folder()
    assert galip_runtime.load(bundle, device="openvino").generate("red", 1).shape == (1, 8, 8, 3)
    assert not os.path.exists("/nonexistent")


def test_a_name_with_a_nul(monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "GALIP_CACHE": "a\0b"})
    assert optional_cache("a") is None


def test_the_reason_is_said_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert [optional_cache("a") for _ in range(3)] == [None] * 3
    assert caplog.text.count("nothing is kept") == 1


@posix
class TestOthers:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
        assert cache_folder("a") == tmp_path / "cache" / "a"
        return tmp_path / "cache"

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o720, 0o702, 0o1777])
    @pytest.mark.parametrize("name", [".", "a"])
    def test_who_may_write_to_it(self, cache, name, mode):
        (cache / name).chmod(mode)
        assert optional_cache("a") is None
        (cache / name).chmod(0o755)
        assert optional_cache("a") == cache / "a"

    def test_who_own_it(self, cache, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        with pytest.raises(UsageError, match=r"cache belongs to another user.*GALIP_CACHE"):
            cache_folder("a")

    @pytest.mark.parametrize(("mode", "trusted"), [(0o777, False), (0o1777, True), (0o775, True)])
    def test_who_may_rename_it(self, tmp_path, cache, mode, trusted):
        tmp_path.chmod(mode)
        assert (optional_cache("a") is not None) == trusted

    def test_nothing_is_made_where_all_may_write(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "new"))
        tmp_path.chmod(0o777)
        assert optional_cache("a") is None
        assert not (tmp_path / "new").exists()

    def test_who_may_rename_where_a_link_leads_to(self, tmp_path, cache, monkeypatch):
        (tmp_path / "open").mkdir()
        cache.rename(tmp_path / "open" / "cache")
        (tmp_path / "link").symlink_to("open/cache")
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "link"))
        assert optional_cache("a") is not None
        (tmp_path / "open").chmod(0o777)
        assert optional_cache("a") is None


@posix
@pytest.mark.parametrize("variable", ["HOME", "GALIP_CACHE", "XDG_CACHE_HOME"])
def test_a_folder_that_may_not_be_entered(tmp_path, monkeypatch, variable):
    place = tmp_path / "locked"
    place.mkdir()
    place.chmod(0)
    monkeypatch.setenv(variable, str(place / "a"))
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:  # who may enter anything
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        os._exit(0 if optional_cache("a") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    place.chmod(0o700)
