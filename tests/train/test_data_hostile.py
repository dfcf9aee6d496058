"""Data sets that are damaged, odd or made to harm: a typed error or a counted broken picture, soon."""

import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest
from galip_runtime import FileRefused, GalipError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import features
from train.layout_fixtures import encoded, picture, write, write_tar

from galip.data.check import check_data
from galip.data.decode import BrokenPicture, EncodedPicture
from galip.data.layouts.pickled import strings_of_pickle
from galip.data.sources import list_splits, open_source
from galip.data.tars import members
from galip.data.texts import check_captions, decode_text, lines_of, parse_json
from galip.metrics.pictures import captions_of, open_pictures

PNG = encoded(picture(0), "PNG")
AVIF = pytest.param("avif", marks=pytest.mark.skipif(not features.check("avif"), reason="an older Pillow"))

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def little_memory():
    """What reads /dev/zero or believes a header fails, instead of filling the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (32 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def good(folder, name="b"):
    write(folder / f"{name}.png", PNG)
    write(folder / f"{name}.txt", "a disc")


def odd(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "nowhere":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**41)


KINDS = ["pipe", "endless", "nowhere", "folder", "empty", "sparse"]


class TestFilesThatAreNone:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["a.png", "a.txt"])
    def test_a_picture_or_caption_is_counted_as_broken(self, tmp_path, name, kind):
        good(tmp_path)
        good(tmp_path, "a")
        (tmp_path / name).unlink()
        odd(tmp_path / name, kind)
        report, _ = check_data(tmp_path)
        is_picture = kind != "folder" or name == "a.txt"
        assert (report.pictures, report.broken) == ((2, 1) if is_picture else (1, 0))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["captions.jsonl", "00000.tar", "train/filenames.pickle"])
    def test_an_index_is_refused_or_not_one(self, tmp_path, name, kind):
        good(tmp_path)
        odd(tmp_path / name, kind)
        with contextlib.suppress(FileRefused, UsageError):
            report, _ = check_data(tmp_path)
            assert report.pictures == 1

    def test_a_folder_that_cannot_be_read_is_refused_and_not_left_out(self, tmp_path, monkeypatch):
        good(tmp_path)
        good(tmp_path / "sub", "c")

        def scandir(folder):
            if str(folder).endswith("sub"):
                raise PermissionError(13, "Permission denied", str(folder))
            return real(folder)

        real = os.scandir
        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(FileRefused, match="sub"):
            check_data(tmp_path)

    def test_a_name_that_is_too_long(self, tmp_path):
        with pytest.raises(GalipError):
            open_source(tmp_path / ("a" * 300))


def header(name, size, kind):
    """512 bytes of a tar's member; sizes that octal digits don't hold are in base 256."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:107] = b"0000644"
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[136:147] = b"0" * 11
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content):
    return content + b"\0" * (-len(content) % 512)


HEADERS = {
    "base 256": header(b"a.png", 2**80, b"0") + bytes(512),
    "terabytes": header(b"a.png", 2**42, b"0") + bytes(512),
    "pax length": header(b"x", 512, b"x")
    + padded(b"99999999999999999999 size=1\n")
    + header(b"a.png", 0, b"0"),
    "pax not a number": header(b"x", 512, b"x") + padded(b"x size=1\n") + header(b"a.png", 0, b"0"),
    "pax size": header(b"x", 512, b"x") + padded(b"14 size=1e999\n") + header(b"a.png", 0, b"0"),
    "pax of pax": (header(b"x", 512, b"x") + padded(b"9 a=bcde\n")) * 3000,
    "long link": (header(b"././@LongLink", 5, b"L") + padded(b"abcd\0")) * 3000,
    "long name": header(b"././@LongLink", 2**33, b"L") + bytes(512),
    "links": header(b"a.png", 0, b"2") + header(b"b.png", 0, b"1") + header(b"c.png", 0, b"3"),
    "outside": header(b"../../a.png", 3, b"0")
    + padded(b"abc")
    + header(b"/etc/a.txt", 1, b"0")
    + padded(b"x"),
    "no UTF-8": header(b"\xff\xfe.png", 3, b"0") + padded(b"abc"),
}


class TestTars:
    @pytest.mark.parametrize("name", HEADERS)
    def test_forged_headers(self, tmp_path, name):
        (tmp_path / "00000.tar").write_bytes(HEADERS[name] + bytes(1024))
        with contextlib.suppress(FileRefused, UsageError):
            report, _ = check_data(tmp_path)
            assert report.broken == report.pictures > 0

    @given(st.lists(st.tuples(st.integers(0, 3 * 512 - 1), st.integers(0, 255)), min_size=1, max_size=4))
    @settings(max_examples=200, deadline=None)
    def test_damaged_headers(self, tmp_path_factory, changes):
        folder = tmp_path_factory.mktemp("tar")
        write_tar(folder / "0.tar", [("a.png", PNG[:300]), ("a.txt", b"x")])
        content = bytearray((folder / "0.tar").read_bytes())
        for position, value in changes:
            content[position] = value
        (folder / "0.tar").write_bytes(content)
        with contextlib.suppress(FileRefused, UsageError):
            check_data(folder)
        shutil.rmtree(folder)

    def test_what_macos_and_webdataset_add_is_no_sample(self, tmp_path):
        stray = [("._a.png", b"\0\5"), (".DS_Store", b""), ("README", b"x"), ("__index__.json", b"{}")]
        write_tar(tmp_path / "0.tar", [*stray, ("a.png", PNG), ("a.txt", b"x"), ("a.json", b"{}")])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)

    def test_a_member_that_is_too_large_is_a_broken_sample(self, tmp_path):
        write_tar(
            tmp_path / "0.tar", [("a.png", PNG), ("a.txt", bytes(2**22 + 1)), ("b.png", PNG), ("b.txt", b"x")]
        )
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (2, 1)

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    @pytest.mark.parametrize("name", ["a", "x" * 90, "x/" * 70 + "y", "東京/é"])
    def test_members_are_those_that_python_reads(self, tmp_path, form, name):
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w", format=form) as tar:
            folder = tarfile.TarInfo("some")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for ending, content in (("png", PNG), ("txt", b"a disc"), ("json", b"{}")):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo(f"{name}.link")
            link.type, link.linkname = tarfile.SYMTYPE, name[:90]
            tar.addfile(link)
        with tarfile.open(path) as tar, path.open("rb") as file:
            expected = [(info.name, info.offset_data, info.size) for info in tar]
            assert [(member.name, member.offset, member.size) for member in members(file)] == expected
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)

    @pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
    def test_a_name_of_gigabytes_is_not_read(self, tmp_path, kind):
        with (tmp_path / "0.tar").open("wb") as file:
            file.write(header(b"x", 2**31, kind))
            file.truncate(2**31 + 4096)
        tracemalloc.start()
        try:
            with pytest.raises(FileRefused, match="2,147,483,648"):
                check_data(tmp_path)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()

    @given(st.binary(max_size=1500), st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"0", b"1", b"5"]))
    @settings(max_examples=200, deadline=None)
    def test_a_reader_of_any_headers_ends_with_members_or_a_value_error(self, content, kind):
        blocks = (
            header(b"x", len(content), kind) + padded(content) + header(b"a.png", 3, b"0") + padded(b"abc")
        )
        with contextlib.suppress(ValueError):
            entries = list(members(io.BytesIO(blocks + bytes(1024))))
            assert all(0 <= member.offset <= len(blocks) - member.size for member in entries)

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    @given(
        names=st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=60)
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_it_reads_what_tarfile_writes(self, form, names):
        if form == tarfile.USTAR_FORMAT:
            names = [name for name in names if len(f"{name}.png".encode()) <= tarfile.LENGTH_NAME]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for name in names:
                member = tarfile.TarInfo(f"{name}.png")
                member.size = len(name)
                tar.addfile(member, io.BytesIO(b"x" * len(name)))
        with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
            expected = [(member.name, member.offset_data, member.size) for member in tar]
        entries = [(member.name, member.offset, member.size) for member in members(out)]
        assert [entry[1:] for entry in entries] == [entry[1:] for entry in expected]
        assert [name for name, *_ in entries] == [name for name, *_ in expected]

    def test_whatever_belongs_to_no_sample_is_counted(self, tmp_path):
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        about = [("README.txt", b"x"), ("LICENSE", b"x"), ("notes.md", b"x"), ("._a.png", b"x")]
        write_tar(tmp_path / "train-0.tar", [*about, ("a.png", PNG), ("a.txt", b"x"), ("a.cls", b"3")])
        with tarfile.open(tmp_path / "train-0.tar", "a") as tar:
            tar.addfile(link)
        write_tar(tmp_path / "extra.tar", [("b.png", PNG), ("b.txt", b"x")])
        write(tmp_path / "c.png", PNG)
        write(tmp_path / "._train-0.tar", b"\0\5\x16\7")
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)
        assert report.left_out == {
            "files about their tar": 2,
            "files beside the tars ending in .png": 1,
            "files in tars ending in .cls": 1,
            "files in tars ending in .md": 1,
            "hidden files in tars": 1,
            "links, devices and sparse files in tars": 1,
            "tars that belong to no split": 1,
        }

    def test_a_key_that_comes_twice_gives_two_samples(self, tmp_path):
        sample = [("a.png", PNG), ("a.txt", b"x")]
        write_tar(tmp_path / "0.tar", [*sample, ("a.png", PNG), ("a.txt", b"y")])
        source = open_source(tmp_path)
        assert [source.captions(index) for index in range(len(source))] == [("x",), ("y",)]

    @pytest.mark.parametrize(("ending", "kind"), [("gif", "GIF"), ("bmp", "BMP"), ("jfif", "JPEG")])
    def test_other_endings_are_read(self, tmp_path, ending, kind):
        write_tar(tmp_path / "0.tar", [(f"a.{ending}", encoded(picture(0), kind)), ("a.txt", b"x")])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)

    @pytest.mark.parametrize("kind", ["gz", "xz"])
    def test_a_compressed_tar_is_refused(self, tmp_path, kind):
        with tarfile.open(tmp_path / "0.tar", f"w:{kind}"):
            pass
        with pytest.raises(FileRefused):
            check_data(tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        "[" * 10**5,
        '{"shards":[],"summary":{"per_split":{"train":1e999}}}',
        '{"shards":[{"name":[],"bytes":1,"sha256":""}]}',
        '{"shards":[{"name":"0.tar","bytes":1e999,"sha256":""}]}',
        '{"shards":{"a":1}}',
        "[]",
        "\ufeff{}",
        "nul\0",
    ],
)
@pytest.mark.parametrize("name", ["dataset.json", "0_stats.json"])
def test_records_of_shards(tmp_path, name, document):
    write_tar(tmp_path / "0.tar", [("a.png", PNG), ("a.txt", b"x")])
    (tmp_path / name).write_text(document)
    try:
        report, _ = check_data(tmp_path)
    except FileRefused:
        assert name == "dataset.json"
    else:
        assert (report.pictures, report.broken) == (1, 0)


def coco(folder, images, annotations):
    document = {"images": images, "annotations": annotations}
    text = document if isinstance(images, str) else json.dumps(document)
    write(folder / "annotations" / "captions_train2014.json", text)
    for name in ("a.jpg", "b.jpg"):
        write(folder / "train2014" / name, encoded(picture(0)))


TWO = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]


class TestCoco:
    def test_ids_that_are_text(self, tmp_path):
        coco(tmp_path, TWO, [{"image_id": "1", "caption": "x"}, {"image_id": "2", "caption": "y"}])
        assert [open_source(tmp_path).captions(index) for index in range(2)] == [("x",), ("y",)]

    def test_captions_that_are_no_text(self, tmp_path):
        coco(tmp_path, TWO, [{"image_id": 1, "caption": None}, {"image_id": 2, "caption": "y"}])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (2, 1)

    def test_captions_of_pictures_that_are_not_listed_are_counted(self, tmp_path):
        coco(tmp_path, TWO[:1], [{"image_id": 1, "caption": "x"}, {"image_id": 9, "caption": "y"}])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)
        assert report.left_out == {
            "captions of pictures that are not listed": 1,
            "files that the annotations do not list": 1,  # b.jpg
        }

    def test_whatever_is_not_used_is_counted(self, tmp_path):
        again = [{"id": "1", "file_name": "b.jpg"}]
        coco(tmp_path, TWO + again, [{"image_id": 1, "caption": "x"}, {"image_id": 1, "caption": None}])
        source = open_source(tmp_path)
        assert (len(source), source.captions(0)) == (2, ("x",))
        assert source.left_out == {
            "pictures listed a second time": 1,
            "captions that are empty or no text": 1,
        }

    def test_a_name_in_other_code_points(self, tmp_path):
        coco(tmp_path, [{"id": 1, "file_name": "é.jpg"}], [{"image_id": 1, "caption": "x"}])
        write(tmp_path / "train2014" / "e\u0301.jpg", encoded(picture(0)))
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)

    @pytest.mark.parametrize("identity", [None, 1.5, [], True, float("inf")])
    def test_ids_that_are_none(self, tmp_path, identity):
        coco(tmp_path, [{"id": identity, "file_name": "a.jpg"}], [])
        with pytest.raises(FileRefused):
            open_source(tmp_path)

    @pytest.mark.parametrize(
        "name", ["\ud800.jpg", "a" * 5000 + ".jpg", "../a.jpg", "/a.jpg", "a\0.jpg", "", 5]
    )
    def test_names_that_are_none(self, tmp_path, name):
        coco(tmp_path, [{"id": 1, "file_name": name}], [{"image_id": 1, "caption": "x"}])
        with pytest.raises(FileRefused):
            open_source(tmp_path)


class TestCub:
    @pytest.mark.parametrize("box", ["300 300 50 50", "10 10 0 0", "-90 0 10 10", "nan inf 1 1", "a b c d"])
    def test_a_box_outside_its_picture(self, tmp_path, box):
        root = tmp_path / "CUB_200_2011"
        write(root / "images/A/p.jpg", encoded(picture(0)))
        write(tmp_path / "text/A/p.txt", "a bird")
        write(root / "images.txt", "1 A/p.jpg\n")
        write(root / "train_test_split.txt", "1 1\n")
        write(root / "bounding_boxes.txt", f"1 {box}\n")
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 1)


class TestFolder:
    def test_a_class_called_train_is_no_split(self, tmp_path):
        for name in ("bus", "car", "train"):
            good(tmp_path / name)
        assert len(open_source(tmp_path)) == 3

    def test_splits_are_splits_whatever_lies_beside(self, tmp_path):
        for name in ("train", "val", "extra"):
            good(tmp_path / name)
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.splits) == (1, ["train", "val"])
        assert report.left_out == {"pictures in extra/, which is no split": 1}

    def test_other_files_are_counted(self, tmp_path):
        good(tmp_path)
        for name in ("a.tif", "b.tif", "c.heic", "README"):
            write(tmp_path / name, b"x")
        report, _ = check_data(tmp_path)
        assert sorted(report.left_out.values()) == [1, 1, 2]

    @pytest.mark.parametrize("ending", ["JPG", "jfif", "jpe", "gif", "bmp", "webp", AVIF])
    def test_other_endings_are_read(self, tmp_path, ending):
        kind = {"gif": "GIF", "bmp": "BMP", "webp": "WEBP", "avif": "AVIF"}.get(ending, "JPEG")
        write(tmp_path / f"a.{ending}", encoded(picture(0), kind))
        write(tmp_path / ("a.TXT" if ending == "JPG" else "a.txt"), "x")
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)

    @pytest.mark.parametrize(
        ("stored", "listed"), [("e\u0301.png", "é.png"), ("é.png", "e\u0301.png"), ("a/b.png", "a\\b.png")]
    )
    def test_names_that_are_spelled_otherwise(self, tmp_path, stored, listed):
        write(tmp_path / stored, PNG)
        line = json.dumps({"file": listed, "caption": "x"}, ensure_ascii=False)
        (tmp_path / "captions.jsonl").write_bytes(f"\ufeff{line}\r\n".encode())
        assert open_source(tmp_path).captions(0) == ("x",)

    @pytest.mark.parametrize("name", ["a" * 5000, "\ud800", "a\0", "..", ""])
    def test_names_that_are_none(self, tmp_path, name):
        good(tmp_path)
        write(tmp_path / "captions.jsonl", json.dumps({"file": name, "caption": "x"}))
        with contextlib.suppress(FileRefused, UsageError):
            report, _ = check_data(tmp_path)
            assert report.pictures == 1

    def test_lines_of_one_picture_are_joined(self, tmp_path):
        good(tmp_path)
        write(
            tmp_path / "captions.jsonl", '{"file": "b.png", "caption": "x"}\n{"file": "b.png", "text": "y"}'
        )
        assert open_source(tmp_path).captions(0) == ("x", "y")

    def test_what_is_not_read_is_counted(self, tmp_path):
        good(tmp_path / "set")
        good(tmp_path / "elsewhere")
        (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
        write(tmp_path / "set" / "alone.txt", "x")
        write(tmp_path / "set" / ".hidden.png", PNG)
        report, _ = check_data(tmp_path / "set")
        assert report.left_out == {
            "hidden files and folders": 1,
            "linked folders, which are not followed": 1,
            "text files without a picture": 1,
        }

    def test_validation_is_a_split(self, tmp_path):
        good(tmp_path / "train")
        good(tmp_path / "validation")
        assert (len(open_source(tmp_path)), list_splits(tmp_path)) == (1, ["train", "validation"])

    @pytest.mark.parametrize(
        "caption",
        [
            "x" * 100_001,
            f"&#{'9' * 5000};",
            f"&amp;#{'9' * 5000};",
            f"\uff06#{'9' * 5000};",
            f"\uff06\uff03{chr(0xFF19) * 5000}\uff1b",
            "x\0y",
        ],
    )
    def test_a_caption_that_no_tokenizer_takes(self, tmp_path, caption):
        good(tmp_path)
        good(tmp_path, "a")
        write(tmp_path / "a.txt", caption)
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (2, 1)


def test_a_link_to_nowhere_is_judged_as_broken(tmp_path):
    good(tmp_path)
    (tmp_path / "a.png").symlink_to("nowhere")
    write(tmp_path / "a.txt", "a disc")
    pictures = open_pictures(tmp_path, skip_broken=True)
    assert pictures.batch([0, 1]).shape[0] == 1
    assert pictures.broken == 1


class TestTexts:
    @pytest.mark.parametrize(
        "content",
        [b"a\r\nb\n", b"a\rb", "\ufeffa\nb".encode(), "a\nb".encode("utf-16"), b" a \n\n\tb\n"],
    )
    def test_lines(self, content):
        assert lines_of(decode_text(content)) == ["a", "b"]

    def test_other_separators_stay_in_a_line(self, tmp_path):
        (tmp_path / "c.txt").write_bytes("\ufeffa\u2028b\x0cc\r\nd\r\n".encode())
        assert sorted(captions_of([], tmp_path / "c.txt", 2, 0)) == ["a\u2028b\x0cc", "d"]

    @pytest.mark.parametrize("content", [b"caf\xe9", b"\xff\xfe\0", b"\x80"])
    def test_other_encodings(self, content):
        with pytest.raises(ValueError, match="codec"):
            decode_text(content)

    @pytest.mark.parametrize("captions", [[], [""], [None], ["a", " "], [5], ["\ud800"], ["a\0"]])
    def test_captions_that_are_none(self, captions):
        with pytest.raises(ValueError, match="caption"):
            check_captions(captions)

    @given(st.binary(max_size=60))
    def test_json_is_a_value_or_a_value_error(self, content):
        with contextlib.suppress(ValueError):
            parse_json(content)

    def test_deep_json(self):
        with pytest.raises(ValueError, match="deep"):
            parse_json(b"[" * 10**5)


@given(st.binary(max_size=80) | st.lists(st.text(max_size=5), min_size=1).map(pickle.dumps))
@settings(deadline=None)
def test_pickles(content):
    try:
        keys = strings_of_pickle(content, "x")
    except FileRefused:
        pass
    else:
        assert all(type(key) is str for key in keys)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        PNG[:40],
        PNG[:-30],
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        PNG[:16] + np.array([65535, 65535], ">u4").tobytes() + PNG[24:],
        b"<svg/>",
    ],
)
def test_pictures_that_are_broken(tmp_path, content):
    good(tmp_path)
    good(tmp_path, "a")
    (tmp_path / "a.png").write_bytes(content)
    report, _ = check_data(tmp_path)
    assert (report.pictures, report.broken) == (2, 1)


def test_a_jpeg_of_thousands_of_scans_is_broken():
    content = encoded(picture(0).resize((400, 400)), progressive=True)
    last = content.rindex(b"\xff\xda")
    assert EncodedPicture("x", content).decode().size == (400, 400)
    with pytest.raises(BrokenPicture, match=r"^x: "):
        EncodedPicture("x", content[:-2] + content[last:-2] * 200 + content[-2:]).decode()
    film = content + b"\xff\xda" * 200  # what follows the picture's end
    assert EncodedPicture("x", film).decode().size == (400, 400)


@pytest.mark.parametrize(
    "content", [b"(" + b"]" * 10**5 + b"l.", b"(" * 10**5 + b"l."], ids=["lists", "marks"]
)
def test_a_pickle_whose_every_byte_takes_memory(content):
    tracemalloc.start()
    try:
        with pytest.raises(FileRefused):
            strings_of_pickle(content, "x")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_bird_without_a_box_is_broken(tmp_path):
    root = tmp_path / "CUB_200_2011"
    for name in ("p", "q"):
        write(root / f"images/A/{name}.jpg", encoded(picture(0)))
        write(tmp_path / f"text/A/{name}.txt", "a bird")
    write(root / "images.txt", "1 A/p.jpg\n")
    write(root / "bounding_boxes.txt", "1 5 5 20 20\n")
    write(tmp_path / "train" / "filenames.pickle", pickle.dumps(["A/p", "A/q"]))
    report, _ = check_data(tmp_path)
    assert (report.pictures, report.broken) == (2, 1)


def test_a_sheet_s_pictures_are_decoded_one_at_a_time(tmp_path):
    for name in "abc":
        good(tmp_path, name)
    _, samples = check_data(tmp_path, samples=3)
    assert len(samples) == 3
    first, second = next(iter(samples)), next(iter(samples))
    assert first.key == second.key
    assert first.picture is not second.picture


def test_large_pictures_are_judged_at_a_size_alone(tmp_path):
    write(tmp_path / "a.png", encoded(picture(0, "1").resize((2100, 2100)), "PNG"))
    with pytest.raises(UsageError, match="--size"):
        open_pictures(tmp_path).batch([0])
    assert open_pictures(tmp_path, size=32).batch([0]).shape == (1, 3, 32, 32)
