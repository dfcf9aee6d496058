import contextlib
import io
import json
import re
import tarfile

import pytest
from galip_runtime.errors import FileRefused, UsageError
from PIL import Image

from galip.data.shard_reader import check_ends, members_of
from galip.data.shards import read_metas, read_samples, write_shards


def encoded(size=(8, 8), colour="red", kind="PNG", mode="RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind)
    return out.getvalue()


def tar_of(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_is_written_is_read(tmp_path):
    samples = [
        (f"k{n}", encoded(colour=(n, 0, 0)), f"caption {n}", {"n": n, "captions": [f"caption {n}", "x"]})
        for n in range(7)
    ]
    paths = write_shards(tmp_path, "train", samples, per_shard=3)
    assert [path.name for path in paths] == ["train-00000.tar", "train-00001.tar", "train-00002.tar"]
    read = list(read_samples(tmp_path, "train"))
    assert [(s.key, s.caption, s.captions, s.meta["n"]) for s in read] == [
        (f"k{n}", f"caption {n}", [f"caption {n}", "x"], n) for n in range(7)
    ]
    assert [int(s.picture[0, 0, 0]) for s in read] == list(range(7))
    assert [meta["n"] for meta in read_metas(tmp_path, "train")] == list(range(7))


def test_a_users_own_shards(tmp_path):
    """img2dataset's layout: 00000.tar, jpg or webp, JSON with other things in it."""
    tar_of(tmp_path / "00000.tar", {
        "000000000.jpg": encoded(kind="JPEG"),
        "000000000.txt": b" a cat\n",
        "000000000.json": json.dumps({"caption": "a cat", "url": "x.y"}).encode(),
        "sub/000000001.webp": encoded(kind="WEBP"),
        "sub/000000001.txt": "ein Bär".encode(),
    })  # fmt: skip
    read = list(read_samples(tmp_path))
    assert [(sample.key, sample.caption) for sample in read] == [
        ("000000000", "a cat"),
        ("sub/000000001", "ein Bär"),
    ]
    assert [sample.key for sample in read_samples(tmp_path / "00000.tar")] == ["000000000", "sub/000000001"]
    with pytest.raises(UsageError, match=r"val-\*\.tar"):
        list(read_samples(tmp_path, "val"))


def test_transparency_becomes_white_and_grey_becomes_rgb(tmp_path):
    tar_of(tmp_path / "a.tar", {
        "a.png": encoded(mode="RGBA", colour=(0, 0, 0, 0)), "a.txt": b"nothing",
        "b.png": encoded(mode="L", colour=77), "b.txt": b"grey",
    })  # fmt: skip
    nothing, grey = read_samples(tmp_path)
    assert (nothing.picture == 255).all()
    assert grey.picture.shape == (8, 8, 3)
    assert (grey.picture == 77).all()


def test_a_truncated_tar_is_refused_wherever_it_was_cut(tmp_path):
    samples = [(f"k{n}", encoded((32, 32)), f"caption {n}", {}) for n in range(4)]
    (path,) = write_shards(tmp_path, "train", samples)
    whole = path.read_bytes()
    refused = []
    for length in range(0, len(whole), 256):
        path.write_bytes(whole[:length])
        with contextlib.suppress(FileRefused):
            read = len(list(read_samples(path)))
            assert read == 4, f"cut at {length} of {len(whole)}, it passed for a whole tar of {read} samples"
            continue
        refused.append(length)
    assert len(refused) > 10
    assert len(whole) - 10240 <= refused[-1], "what was cut beyond is padding"


def test_no_tar_at_all(tmp_path):
    path = tmp_path / "train-00000.tar"
    path.write_bytes(b"this is no tar" * 100)
    with pytest.raises(FileRefused, match=r"train-00000\.tar"):
        list(read_samples(tmp_path))
    with pytest.raises(UsageError, match="nowhere"):
        list(read_samples(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty"):
        list(read_samples(tmp_path / "empty"))


GOOD = encoded((32, 32))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"k.png": GOOD[: len(GOOD) // 2], "k.txt": b"x"}, r"sample k\b"),
        ({"k.png": b"no picture", "k.txt": b"x"}, r"sample k\b"),
        ({"k.png": b"", "k.txt": b"x"}, r"sample k\b"),
        ({"k.txt": b"x"}, r"sample k\b.*\['txt'\]"),
        ({"k.png": GOOD}, r"sample k\b.*\.txt"),
        ({"k.png": GOOD, "k.txt": b"  \n"}, r"sample k\b"),
        ({"k.png": GOOD, "k.txt": b"\xff\xfe"}, r"sample k\b"),
        ({"k.png": GOOD, "k.txt": b"x", "k.json": b"{"}, r"sample k\b"),
        ({"k.png": GOOD, "k.txt": b"x", "k.json": b"[]"}, r"sample k\b"),
        ({"k.png": GOOD, "k.txt": b"x", "k.json": b'{"captions": 1}'}, r"sample k\b.*captions"),
    ],
)
def test_a_broken_sample_is_named_with_its_shard(tmp_path, members, message):
    tar_of(tmp_path / "train-00000.tar", {"good.png": GOOD, "good.txt": b"fine", **members})
    with pytest.raises(FileRefused, match=message) as refused:
        list(read_samples(tmp_path))
    assert "train-00000.tar" in str(refused.value)


@pytest.mark.parametrize("key", ["", "a.b", "a/b"])
def test_keys_that_cannot_name_a_sample(tmp_path, key):
    with pytest.raises(UsageError, match=re.escape(repr(key))):
        write_shards(tmp_path, "train", [(key, GOOD, "x", {})])


@pytest.mark.parametrize("record", ["{", "[]", '{"shards": [{"name": "x"}]}'])
def test_a_broken_record(tmp_path, record):
    write_shards(tmp_path, "train", [("k", GOOD, "x", {})])
    (tmp_path / "dataset.json").write_text(record)
    with pytest.raises(FileRefused, match=r"dataset\.json"):
        list(read_samples(tmp_path))


@pytest.mark.parametrize("harm", ["a damaged head", "another tar after it"])
def test_nothing_in_a_tar_is_lost_silently(tmp_path, harm):
    """Python's reader takes both for the end."""
    (shard,) = write_shards(tmp_path, "train", [(f"k{i}", encoded(), "x", {}) for i in range(6)])
    content = bytearray(shard.read_bytes())
    if harm == "a damaged head":
        content[content.index(b"k3.png")] ^= 1
    else:
        content = content * 2
    shard.write_bytes(content)
    with pytest.raises(FileRefused, match=r"train-00000\.tar"):
        list(members_of(shard))


def test_all_truncated_tars_are_named(tmp_path):
    shards = write_shards(tmp_path, "train", [(f"k{i}", encoded(), "x", {}) for i in range(6)], per_shard=2)
    check_ends(shards)
    for shard in shards[:2]:
        shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(FileRefused, match=r"train-00000\.tar, .*train-00001\.tar"):
        check_ends(shards)
