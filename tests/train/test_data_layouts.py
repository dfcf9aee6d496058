"""Every layout as people have it, and everything that may be wrong with one."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from galip_runtime.errors import FileRefused, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from train.layout_fixtures import BIRDS, WRITERS, captions, encoded, picture, write, write_tar

from galip.data import decode
from galip.data.decode import BrokenPicture, EncodedPicture
from galip.data.layouts import LAYOUTS
from galip.data.layouts.cub import bird_box
from galip.data.layouts.pickled import read_keys, strings_of_pickle
from galip.data.sources import list_splits, open_source, recognise


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with one set of each layout; not to be changed."""
    root = tmp_path_factory.mktemp("sets")
    for name, writer in WRITERS.items():
        writer(root / name)
    return root


@pytest.fixture
def copy(sets, tmp_path):
    """A set of one's own."""
    return lambda name: shutil.copytree(sets / name, tmp_path / name)


# What is there is found

FOUND = {  # name: layout, {split: [pictures, captions of the first]}
    "cub": ("cub", {"train": (6, 10), "test": (6, 10)}),
    "coco": ("coco", {"train": (6, 5), "val": (3, 5)}),
    "dfgan_birds": ("dfgan", {"train": (8, 10), "test": (4, 10)}),
    "dfgan_coco": ("dfgan", {"train": (5, 5), "test": (3, 5)}),
    "dfgan_cc3m": ("dfgan", {"train": (5, 1), "test": (3, 1)}),
    "dfgan_cc12m": ("dfgan", {"train": (6, 1)}),
    "shards": ("shards", {"train": (15, 1)}),
    "folder": ("folder", {"train": (4, 3), "val": (1, 3)}),
    "folder_table": ("folder", {"train": (3, 3)}),
}


def test_every_layout_has_a_writer_and_every_writer_a_row_in_found():
    assert set(FOUND) == set(WRITERS)
    assert {layout for layout, _ in FOUND.values()} == set(LAYOUTS)


def colour_of(image):
    """Name of the colour in the middle."""
    middle = np.asarray(image)[image.height // 2, image.width // 2].astype(int)
    names = ("red", "green", "blue", "orange", "purple", "brown", "black", "grey")
    return min(names, key=lambda name: abs(middle - Image.new("RGB", (1, 1), name).getpixel((0, 0))).sum())


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_is_recognised_and_its_captions_are_the_pictures_own(sets, name):
    layout, splits = FOUND[name]
    assert recognise(sets / name) == layout
    assert list_splits(sets / name) == list(splits)
    keys = []
    for split, (count, captioned) in splits.items():
        source = open_source(sets / name, split)
        source = pickle.loads(pickle.dumps(source))  # as it goes to a worker
        assert (source.layout, source.split, len(source)) == (layout, split, count)
        assert len(source.captions(0)) == captioned
        for index in range(count):
            sample = source[index]
            assert sample.picture.mode == "RGB"
            assert all(colour_of(sample.picture) in caption for caption in sample.captions[:2])
            assert sample.captions == source.captions(index)
            assert (sample.key, sample.meta) == (source.key(index), source.meta(index))
            keys.append(sample.key)
    assert len(set(keys)) == len(keys)


def test_cub(sets):
    source = open_source(sets / "cub", "test")
    assert [source.key(index) for index in range(6)] == BIRDS[::2]
    assert source.meta(0) == {"class": "001.Black_footed_Albatross"}
    assert source[0].picture.size == (36, 36)  # box 12, 10, 24, 20 of 48 x 40
    assert source.captions(0) == tuple(captions(0, 10, "bird"))
    inside = open_source(sets / "cub" / "CUB_200_2011")
    assert len(inside) == 6


def test_the_released_crop():
    assert bird_box((60.0, 27.0, 325.0, 304.0), 500, 335) == (0, 0, 465, 335)
    assert bird_box((139.0, 30.0, 153.0, 264.0), 400, 400) == (17, 0, 400, 360)
    assert bird_box((100.5, 100.5, 40.0, 20.0), 400, 400) == (90, 80, 150, 140)


def test_captions_of_cub_in_other_places(sets, copy):
    root = copy("cub")
    (root / "text").rename(root / "CUB_200_2011" / "text_c10")
    for path in (root, root / "CUB_200_2011"):
        assert open_source(path).captions(0) == open_source(sets / "cub").captions(0)
    shutil.rmtree(root / "CUB_200_2011" / "text_c10")
    with pytest.raises(FileRefused, match=re.escape(str(root))):
        open_source(root)


def test_coco_test_is_val_and_pictures_may_lie_under_images(copy):
    root = copy("coco")
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    source = open_source(root, "test")
    assert (source.split, source[0].key) == ("val", "COCO_val2014_000000000106")
    shutil.rmtree(root / "images")
    with pytest.raises(FileRefused, match="val2014"):
        open_source(root, "val")


def test_shards_carry_their_json_and_splits(sets, tmp_path):
    source = open_source(sets / "shards")
    assert source.meta(7)["url"] == "https://pictures.example/7.jpg"
    assert source.captions(7) == ("a grey disc number 7",)
    shutil.copytree(sets / "shards", tmp_path / "val")
    assert list_splits(tmp_path) == ["val"]
    assert len(open_source(tmp_path, "val")) == 15
    shutil.copy(sets / "shards" / "00000.tar", tmp_path / "two")
    named = tmp_path / "named"
    named.mkdir()
    for name in ("train-0.tar", "test-0.tar"):
        shutil.copy(tmp_path / "two", named / name)
    assert list_splits(named) == ["train", "test"]
    assert len(open_source(named, "test")) == 5


def test_a_folder_s_table_has_meta_and_all_forms(sets):
    source = open_source(sets / "folder_table")
    assert [source.key(index) for index in range(3)] == ["a.png", "sub/b.png", "sub/ü.png"]
    assert source.meta(0) == {"source": "drawn"}
    assert source.captions(2) == tuple(captions(2, 1))


def test_windows_line_ends_blank_lines_and_odd_names(sets):
    source = open_source(sets / "folder")
    keys = [source.key(index) for index in range(4)]
    assert keys == ["train/a.png", "train/b.JPG", "train/sub/Bär 🍎.webp", "train/sub/deep/d.jpeg"]
    assert source.captions(2) == (*captions(2, 2), "ein grüner Bär 🐻")


def test_hidden_files_are_no_pictures(copy):
    root = copy("folder_table")
    write(root / "._a.png", b"what macOS leaves")
    write(root / ".cache" / "b.png", b"x")
    assert len(open_source(root)) == 3


# What isn't


@pytest.mark.parametrize("layout", ["auto", *LAYOUTS])
def test_an_empty_folder_says_what_was_looked_for(tmp_path, layout):
    with pytest.raises(UsageError, match=r"(?s)filenames\.pickle.*images\.txt.*\.tar"):
        open_source(tmp_path, layout=layout)


def test_a_wrong_path_a_file_an_unknown_layout_or_split(sets, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"00000\.tar"):
        open_source(sets / "shards" / "00000.tar")
    with pytest.raises(UsageError, match=r"'imagenet'.*auto, dfgan"):
        open_source(sets / "cub", layout="imagenet")
    with pytest.raises(UsageError, match=r"'val'.*train, test"):
        open_source(sets / "cub", "val")
    with pytest.raises(UsageError, match="'test'"):
        open_source(sets / "shards", "test")
    with pytest.raises(UsageError, match=r"layout coco\b"):
        open_source(sets / "cub", layout="coco")


TABLE = "captions.jsonl"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("cub", "CUB_200_2011/images.txt", "1\n", r"images\.txt: line 1\b"),
        ("cub", "CUB_200_2011/images.txt", "1 ../../x.jpg\n", r"\.\./\.\./x\.jpg"),
        ("cub", "CUB_200_2011/bounding_boxes.txt", "2 a b c d\n", r"bounding_boxes\.txt.*_0001_1001"),
        ("cub", "CUB_200_2011/bounding_boxes.txt", b"\xff\xff", r"bounding_boxes\.txt"),
        ("coco", "annotations/captions_train2014.json", "{", r"captions_train2014\.json"),
        ("coco", "annotations/captions_train2014.json", '{"images": []}', r"captions_train2014\.json"),
        (
            "coco",
            "annotations/captions_train2014.json",
            '{"images": [{"id": 1.5, "file_name": "a.jpg"}], "annotations": []}',
            r"captions_train2014\.json",
        ),
        ("dfgan_birds", "CUB_200_2011/bounding_boxes.txt", "2 0 0 5 5\n", r"bounding_boxes\.txt.*_0000_1000"),
        ("shards", "00001.tar", b"no tar", r"00001\.tar"),
        ("folder_table", TABLE, "\n{\n", r"\.jsonl, line 2\b"),
        ("folder_table", TABLE, '{"file": "x.png", "caption": "x"}', r"\b4\b.*x\.png"),
        ("folder_table", TABLE, '{"file": "../x.png", "caption": "x"}', r"line 1: .*\.\./x\.png"),
        ("folder_table", TABLE, '{"file": "a.png", "captions": []}', r"\b3\b.*a\.png"),
        ("folder_table", TABLE, '{"file": "a.png", "captions": [" "]}', r"\b3\b.*a\.png"),
        ("folder_table", TABLE, '{"captions": ["x"]}', "line 1: "),
        ("folder_table", TABLE, "", r"\b3\b.*a\.png, sub/b"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(copy, name, file, content, message):
    root = copy(name)
    write(root / file, content)
    with pytest.raises(FileRefused, match=message):
        open_source(root)[0]


def test_pictures_and_captions_that_are_missing_are_broken_ones(copy):
    root = copy("dfgan_coco")
    key = open_source(root).key(0)
    (root / "text" / f"{key}.txt").write_bytes(b"\r\n \r\n")
    with pytest.raises(BrokenPicture, match=f"{key}.txt"):
        open_source(root)[0]
    (root / "text" / f"{key}.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BrokenPicture, match=f"{key}.txt"):
        open_source(root).captions(0)
    (root / "text" / f"{key}.txt").write_text("a \ufffd\ufffdb\n")
    assert open_source(root).captions(0) == ("a  b",)
    next(root.glob(f"images/*/jpg/{key}.jpg")).unlink()
    with pytest.raises(BrokenPicture, match=f"{key}.jpg"):
        open_source(root)[0]


def test_a_sample_without_caption_or_picture_is_a_broken_one(tmp_path):
    good = encoded(picture(0))
    write_tar(tmp_path / "0.tar", [("a.jpg", good), ("b.txt", b"x"), ("c.jpg", good), ("c.txt", b"c")])
    source = open_source(tmp_path)
    assert [source.key(index) for index in range(3)] == ["a", "b", "c"]
    with pytest.raises(BrokenPicture, match=r"sample a\b"):
        source[0]
    with pytest.raises(BrokenPicture, match=r"sample b\b"):
        source.captions(1)
    assert source[2].captions == ("c",)


# Pictures of all kinds


def sixteen_bit_grey(**options):
    return encoded(Image.fromarray(np.full((6, 6), 0x8000, np.uint16)), "PNG", **options)


def sixteen_bit_colour(transparent):
    """A PNG of one pixel, which Pillow can't write."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    colour = chunk(b"tRNS", struct.pack(">3H", *transparent))
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", 0x1234, 0x2345, 0x3456)))
    return b"\x89PNG\r\n\x1a\n" + head + colour + pixel + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("CMYK", (6, 6), (0, 0, 0, 255))), (0, 0, 0)),
        (encoded(Image.new("L", (6, 6), 77), "PNG"), (77, 77, 77)),
        (encoded(Image.new("RGBA", (6, 6), (9, 9, 9, 0)), "PNG"), (255, 255, 255)),
        (encoded(Image.new("LA", (6, 6), (9, 0)), "PNG"), (255, 255, 255)),
        (encoded(Image.new("1", (6, 6), 1), "PNG"), (255, 255, 255)),
        (encoded(Image.new("RGB", (6, 6), (9, 8, 7)).quantize(2), "GIF"), (9, 8, 7)),
        (sixteen_bit_grey(), (128, 128, 128)),
        (sixteen_bit_grey(transparency=0x8000), (255, 255, 255)),
        (sixteen_bit_grey(transparency=0x8001), (128, 128, 128)),
        (sixteen_bit_colour((0x1234, 0x2345, 0x3456)), (255, 255, 255)),
        (sixteen_bit_colour((0x1334, 0x2345, 0x3456)), (0x12, 0x23, 0x34)),
    ],
)
def test_any_mode_becomes_rgb(content, expected):
    decoded = EncodedPicture("x", content).decode()
    assert decoded.mode == "RGB"
    assert max(abs(np.asarray(decoded).astype(int) - expected).reshape(-1)) <= 2


def test_a_phone_s_picture_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    content = encoded(Image.new("RGB", (20, 10)), exif=exif)
    assert EncodedPicture("x", content).decode().size == (10, 20)
    assert EncodedPicture("x", content, upright=False).decode().size == (20, 10)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_does_not_break_a_picture():
    content = encoded(Image.new("RGB", (20, 10)))
    noise = b"Exif\0\0MM\0*\xff\xff\xff\xff"
    segment = b"\xff\xe1" + (len(noise) + 2).to_bytes(2, "big") + noise
    assert EncodedPicture("x", content[:2] + segment + content[2:]).decode().size == (20, 10)


def test_a_bomb_is_not_decoded(monkeypatch):
    content = encoded(Image.new("1", (300, 300)), "PNG")
    monkeypatch.setattr(decode, "MAX_PIXELS", 89_999)
    with pytest.raises(BrokenPicture, match=r"300 x 300.*89,999"):
        EncodedPicture("x", content).decode()
    with pytest.raises(BrokenPicture):
        EncodedPicture("x", content).size()


def test_what_starts_another_program_is_not_decoded():
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "EPS")
    with pytest.raises(BrokenPicture, match=r"^x: "):
        EncodedPicture("x", out.getvalue()).decode()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_picture_is_a_broken_one(data):
    """Or, where the damage hit nothing that matters, still a picture."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]))
    content = bytearray(encoded(picture(1), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(BrokenPicture):
        assert EncodedPicture("x", bytes(content)).decode().mode == "RGB"


# Pickles

PROTOCOLS = st.integers(0, pickle.HIGHEST_PROTOCOL)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), min_size=1), PROTOCOLS)
def test_a_list_of_strings_comes_back(strings, protocol):
    assert strings_of_pickle(pickle.dumps(strings, protocol), "x") == strings


def test_python_2_s_pickles():
    assert strings_of_pickle(b"(lp0\nS'001.a/b_1'\np1\naS'c'\np2\na.", "x") == ["001.a/b_1", "c"]
    assert strings_of_pickle(b"\x80\x02]q\x00(U\x03abcq\x01U\x01dq\x02e.", "x") == ["abc", "d"]


OTHERS = st.one_of(
    st.just([]),
    st.text(),
    st.binary(),
    st.dictionaries(st.text(), st.text()),
    st.tuples(st.text()),
    st.sets(st.text(), min_size=1),
    st.lists(st.one_of(st.integers(), st.binary(), st.none(), st.floats(), st.lists(st.text())), min_size=1),
    st.sampled_from([[os.system], [np.str_("x")], np.array(["x"]), [Exception("x")]]),
)


@settings(max_examples=100, deadline=None)
@given(OTHERS, PROTOCOLS)
def test_any_other_pickle_is_refused(value, protocol):
    with pytest.raises(FileRefused, match=r"^x "):
        strings_of_pickle(pickle.dumps(value, protocol), "x")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.lists(st.text(max_size=5), min_size=1), st.integers(0, 80), PROTOCOLS)
def test_arbitrary_bytes_are_refused_or_strings(noise, strings, place, protocol):
    good = pickle.dumps(strings, protocol)
    for content in (noise, good[:place] + noise + good[place:], good[:place]):
        with contextlib.suppress(FileRefused):
            assert all(type(item) is str for item in strings_of_pickle(content, "x"))


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(lp0\nP1\na.",  # a persistent id
        b"\x80\x02](U\x01ar\xff\xff\xff\xffe.",  # a memo of 34 GB
        b"p99999999999\n.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",  # a string of 9 EB
        b"]q\x00h\x00a.",  # a list that holds itself
    ],
)
def test_pickles_that_do_harm(content):
    with pytest.raises(FileRefused, match=r"^x "):
        strings_of_pickle(content, "x")


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../x", "a/../../x", "a\\..\\..\\b", "\\x", "C:\\x", "a\0b", "", "C:x"]
)
def test_keys_that_lead_elsewhere(copy, key):
    root = copy("dfgan_coco")
    (root / "train" / "filenames.pickle").write_bytes(pickle.dumps([key]))
    with pytest.raises(FileRefused, match=re.escape(repr(key))):
        open_source(root)


def test_a_huge_list_of_keys_is_not_read(tmp_path):
    path = tmp_path / "filenames.pickle"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(FileRefused, match="268,435,456"):
        read_keys(path)


def test_what_dfgan_lacks_is_named(copy):
    root = copy("dfgan_cc3m")
    shutil.rmtree(root / "images")
    with pytest.raises(FileRefused, match="CUB_200_2011/images"):
        open_source(root)
    root = copy("dfgan_birds")
    (root / "train" / "filenames.pickle").write_bytes(pickle.dumps(["001.x/y"]))
    write(root / "text" / "001.x" / "y.txt", "a bird")
    write(root / "CUB_200_2011" / "images" / "001.x" / "y.jpg", encoded(picture(0)))
    with pytest.raises(FileRefused, match=r"001\.x/y"):
        open_source(root)[0]
    for name in ("bounding_boxes.txt", "images.txt"):
        (root / "CUB_200_2011" / name).unlink()
    assert open_source(root)[0].picture.size == picture(0).size


def test_the_table_s_json_may_lie_in_the_split(tmp_path):
    write(tmp_path / "train" / "a.png", encoded(picture(0), "PNG"))
    write(tmp_path / "train" / "metadata.jsonl", json.dumps({"file_name": "a.png", "text": "a red disc"}))
    assert open_source(tmp_path)[0].captions == ("a red disc",)
