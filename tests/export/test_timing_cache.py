"""TensorRT's timing cache beside a bundle. TensorRT for RTX has none: its builder's config is a stand-in."""

import logging
from pathlib import Path

import pytest
from galip_export.timing_cache import TimingCache


class Config:
    """Caches of "right" times are taken, of others not; those that are no cache cannot even be made."""

    def __init__(self, measured=b""):
        self.measured, self.used = measured, None

    def create_timing_cache(self, data):
        return None if data.startswith(b"broken") else data

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache and not cache.startswith(b"right"):
            return False
        self.used = cache
        return True

    def get_timing_cache(self):
        return self

    def serialize(self):
        return memoryview(self.measured or self.used)


def test_what_was_measured_is_there_the_next_time(tmp_path):
    TimingCache(tmp_path / "bundle").save_from(Config(b"right times"))
    assert (tmp_path / "bundle.timing").read_bytes() == b"right times"
    config = Config()
    TimingCache(tmp_path / "bundle").load_into(config)
    assert config.used == b"right times"


def test_within_one_export(tmp_path):
    cache, second = TimingCache(tmp_path / "bundle"), Config()
    cache.save_from(Config(b"right times"))
    (tmp_path / "bundle.timing").unlink()
    cache.load_into(second)
    assert second.used == b"right times"


@pytest.mark.parametrize("found", [b"", b"broken", b"of another GPU"])
def test_what_does_not_fit_is_measured_anew(tmp_path, found):
    (tmp_path / "bundle.timing").write_bytes(found)
    cache, config = TimingCache(tmp_path / "bundle"), Config(b"right, measured")
    cache.load_into(config)
    assert config.used == b""
    cache.save_from(config)
    assert (tmp_path / "bundle.timing").read_bytes() == b"right, measured"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.timing"]


def test_nothing_is_written_where_nothing_is_new(tmp_path):
    cache = TimingCache(tmp_path / "bundle")
    cache.save_from(Config(b"right times"))
    before = cache.path.stat().st_mtime_ns
    again = TimingCache(tmp_path / "bundle")
    again.load_into(Config())
    again.save_from(Config(b"right times"))
    assert cache.path.stat().st_mtime_ns == before


def test_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TimingCache(Path(".")).path == tmp_path.parent / f"{tmp_path.name}.timing"
    assert TimingCache(Path("a/../b")).path == tmp_path / "b.timing"


def test_one_that_cannot_be_read(tmp_path, caplog):
    (tmp_path / "bundle.timing").mkdir()
    config = Config()
    TimingCache(tmp_path / "bundle").load_into(config)
    assert config.used == b""
    assert str(tmp_path / "bundle.timing") in caplog.text


def test_a_folder_that_takes_no_file(tmp_path, caplog):
    (tmp_path / "bundle.timing").mkdir()
    with caplog.at_level(logging.WARNING):
        TimingCache(tmp_path / "bundle").save_from(Config(b"right times"))
    assert str(tmp_path / "bundle.timing") in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.timing"]
