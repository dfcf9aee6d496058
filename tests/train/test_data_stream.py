"""Shards in a stream: what each reader sees, and how it goes on from anywhere."""

import itertools
import json
import re
from collections import Counter

import pytest
from galip_runtime.errors import FileRefused, UsageError
from train.layout_fixtures import encoded, picture, write_shards, write_tar

from galip.data import shard_reader as tars
from galip.data import stream as streams
from galip.data.decode import BrokenPicture
from galip.data.layouts.shards import ShardSource, count_pictures, shards_of_split
from galip.data.left_out import LeftOut
from galip.data.stream import START, ShardStream

SHARDS, EACH = 5, 7


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return shards_of_split(write_shards(tmp_path_factory.mktemp("shards"), SHARDS, EACH), "train")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """So that a shard has several blocks and some blocks have several shards."""
    monkeypatch.setattr(streams, "BLOCK_SAMPLES", 4)


def keys_and_places(stream, lane, count, place=START):
    items = list(itertools.islice(stream.lane(lane, place), count))
    return [item.key for item, _ in items], [place for _, place in items]


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_readers_share_an_epoch_and_each_sample_comes_once(shards, lanes):
    stream = ShardStream(shards, lanes, seed=3)
    for epoch in (0, 1):
        keys_of_readers = []
        for lane in range(lanes):
            size = EACH * len(stream.shards_of(lane, epoch))
            assert size
            skipped = sum(EACH * len(stream.shards_of(lane, before)) for before in range(epoch))
            keys, places = keys_and_places(stream, lane, skipped + size)
            assert {place[0] for place in places[skipped:]} == {epoch}
            keys_of_readers += keys[skipped:]
        assert len(set(keys_of_readers)) == len(keys_of_readers) == SHARDS * EACH


def test_the_order_is_the_seed_s_and_the_epoch_s(shards):
    total = SHARDS * EACH
    first, _ = keys_and_places(ShardStream(shards, 1, seed=1), 0, 2 * total)
    assert keys_and_places(ShardStream(shards, 1, seed=1), 0, 2 * total)[0] == first
    assert keys_and_places(ShardStream(shards, 1, seed=2), 0, 2 * total)[0] != first
    assert first[:total] != first[total:]
    assert first[:total] != sorted(first[:total])
    starts = {key[:5] for key in first[:4]}
    assert len(starts) == 1, "a block is of neighbours"


@pytest.mark.parametrize("lanes", [1, 2])
def test_it_goes_on_from_any_place(shards, lanes):
    stream = ShardStream(shards, lanes, seed=3)
    keys, places = keys_and_places(stream, 0, 60)
    for stop in range(60):
        again = ShardStream(shards, lanes, seed=3)
        assert keys_and_places(again, 0, 60 - stop - 1, places[stop])[0] == keys[stop + 1 :], places[stop]


def test_going_on_reads_no_contents_of_what_was_before(shards, monkeypatch):
    stream = ShardStream(shards, 1, seed=3)
    _, places = keys_and_places(stream, 0, 5)
    read = []
    real = tars.read_member

    def reading(tar, member):
        read.append(member.name)
        return real(tar, member)

    monkeypatch.setattr(tars, "read_member", reading)
    keys_and_places(ShardStream(shards, 1, seed=3), 0, 1, places[4])
    assert places[4] == (0, 0, 4, 1)  # in the second block, of the fifth to eighth sample
    assert len({name.split(".")[0] for name in read}) <= 5, "that block, and what told that it is full"


def test_a_block_of_large_pictures_ends_earlier(shards, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1)
    _, places = keys_and_places(ShardStream(shards, 1, seed=3), 0, 6)
    assert [place[2:] for place in places] == [(number, 1) for number in range(6)]


def test_excluded_samples_are_not_there(shards):
    stream = ShardStream(shards, 1, seed=3, exclude=["width=48"])
    keys, places = keys_and_places(stream, 0, 30)
    assert places[-1][0] == 0
    assert places[29] != places[28]
    all_keys, _ = keys_and_places(ShardStream(shards, 1, seed=3), 0, SHARDS * EACH)
    assert set(keys) < set(all_keys)
    with pytest.raises(UsageError, match="status=success"):
        next(ShardStream(shards, 1, seed=3, exclude=["status=success"]).lane(0))


def test_broken_samples_come_as_such(tmp_path):
    good = encoded(picture(0))
    members = [("a.jpg", good), ("b.jpg", good), ("b.txt", b" "), ("c.jpg", good), ("c.txt", b"fine")]
    write_tar(tmp_path / "0.tar", members)
    stream = ShardStream([tmp_path / "0.tar"], 1, seed=0)
    items = [item for item, _ in itertools.islice(stream.lane(0), 3)]
    kinds = Counter(type(item) for item in items)
    assert kinds[BrokenPicture] == 2
    broken = sorted(str(item) for item in items if isinstance(item, BrokenPicture))
    assert [re.search(r"sample (\w)\b", message)[1] for message in broken] == ["a", "b"]


@pytest.fixture(scope="module")
def untidy(tmp_path_factory):
    """Five shards of three to seven samples, with all kinds of things that are not used."""
    folder = tmp_path_factory.mktemp("untidy")
    good = encoded(picture(0))
    for shard in range(5):
        members = [("README.txt", b"x")]
        for number in range(3 + shard):
            captions = json.dumps({"captions": ["x", None, f"y{number}"], "number": number}).encode()
            texts = [(f"{number}.txt", b"x"), (f"{number}.json", captions), (f"{number}.mp3", b"x")]
            members += [(f"{number}.jpg", good), *texts, (f"._{number}.jpg", b"x")]
        write_tar(folder / f"{shard}.tar", [*members, ("alone.json", b"{}")])
    return sorted(folder.iterdir())


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("exclude", [[], ["number=1"]])
def test_what_is_left_out_is_counted_once(untidy, lanes, exclude):
    stream = ShardStream(untidy, lanes, seed=3, exclude=exclude)
    whole = LeftOut()
    for lane in range(lanes):
        list(itertools.islice(stream.lane(lane, left_out=whole), 60))  # more than an epoch
    expected = ShardSource("train", untidy).left_out
    assert whole == expected
    assert set(whole.values()) == {5, 25}
    assert whole.examples.keys() == expected.examples.keys()


def test_what_is_left_out_is_counted_once_by_one_who_goes_on(untidy):
    stream = ShardStream(untidy, 1, seed=3)
    places = [START, *(place for _, place in itertools.islice(stream.lane(0), 40))]
    for stop, place in enumerate(places):
        left_out = LeftOut()
        list(itertools.islice(stream.lane(0, left_out=left_out), stop))
        list(itertools.islice(stream.lane(0, place, left_out), 40))
        assert left_out == ShardSource("train", untidy).left_out, place


def test_a_broken_tar_stops_it(tmp_path):
    write_shards(tmp_path, 1, 3)
    path = tmp_path / "00000.tar"
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(FileRefused, match=r"00000\.tar"):
        next(ShardStream([path], 1, seed=0).lane(0))


def test_fewer_shards_than_readers(shards):
    with pytest.raises(UsageError, match=r"\b5\b.*\b6\b"):
        ShardStream(shards, 6, seed=0)


def test_pictures_are_counted_by_the_records(tmp_path):
    write_shards(tmp_path, 2, 3)
    assert count_pictures(tmp_path, "train") == 6
    (tmp_path / "00001_stats.json").unlink()
    assert count_pictures(tmp_path, "train") == 0
    (tmp_path / "00001_stats.json").write_text("[]")
    assert count_pictures(tmp_path, "train") == 0
    (tmp_path / "dataset.json").write_text(json.dumps({"summary": {"per_split": {"train": 9}}}))
    assert count_pictures(tmp_path, "train") == 9
