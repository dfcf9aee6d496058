"""One definition of a usable sample for check, training and evaluation; whatever is left out is counted."""

import json
import pickle

import pytest
from galip_runtime.errors import UsageError
from galip_runtime.tokenizer import Tokenizer
from train.layout_fixtures import (
    BIRDS,
    encoded,
    picture,
    write,
    write_coco,
    write_cub,
    write_dfgan_birds,
    write_dfgan_coco,
    write_tar,
)

from galip.data.check import check_data
from galip.data.layouts.shards import count_pictures
from galip.data.left_out import LeftOut
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.data.sources import open_source
from galip.metrics.pictures import open_pictures

PNG = encoded(picture(0), "PNG")
TOKENIZER = Tokenizer([], context_length=40)

pytestmark = pytest.mark.timeout(60)


def good(folder, *names):
    for name in names:
        write(folder / f"{name}.png", PNG)
        write(folder / f"{name}.txt", f"a disc {name}")


def loader(folder, **options):
    return TrainingLoader(LoaderConfig(str(folder), batch_size=1, **options), size=16, tokenizer=TOKENIZER)


class TestLeftOut:
    def test_a_few_examples_of_each_kind_are_kept(self):
        left_out = LeftOut()
        for number in range(5):
            left_out.add("odd files", f"{number}.odd")
        left_out.add("long names", "x" * 1000)
        assert left_out == {"odd files": 5, "long names": 1}
        assert left_out.examples["odd files"] == ["0.odd", "1.odd", "2.odd"]
        assert len(left_out.examples["long names"][0]) < 200
        assert pickle.loads(pickle.dumps(left_out)).examples == left_out.examples

    def test_parts_are_added(self):
        whole = LeftOut()
        for part in range(3):
            left_out = LeftOut()
            for number in range(2):
                left_out.add("odd files", f"{part}{number}")
            whole.add_all(left_out)
        assert (whole, whole.examples) == ({"odd files": 6}, {"odd files": ["00", "01", "10"]})

    def test_the_check_reports_them(self, tmp_path):
        good(tmp_path, "a")
        write(tmp_path / "b.tif", PNG)
        report, _ = check_data(tmp_path)
        assert report.left_out_examples == {"files ending in .tif": ["b.tif"]}
        assert any("b.tif" in line for line in report.lines())

    @pytest.mark.parametrize("stream", ["yes", "no"])
    def test_training_reports_them(self, tmp_path, stream):
        write_tar(tmp_path / "0.tar", [("a.png", PNG), ("a.txt", b"x"), ("._a.png", b"x")])
        write(tmp_path / "b.tif", PNG)
        opened = loader(tmp_path, stream=stream)
        kinds = {"files beside the tars ending in .tif": 1}
        within = {"hidden files in tars": 1}
        assert opened.left_out == (kinds | within if stream == "no" else kinds)
        for step in range(3):  # three epochs
            opened.batch(step)
            assert opened.left_out_in_stream == (within if stream == "yes" else {})


class TestCaptions:
    """Empty ones and what is no text are left out; without any other, a picture is broken. So everywhere."""

    def test_in_a_table(self, tmp_path):
        good(tmp_path, "a", "b")
        lines = [{"file": "a.png", "captions": ["x", "", None, 5]}, {"file": "b.png", "caption": None}]
        write(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, lines)))
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken, report.captions["max"]) == (2, 1, 1)
        assert report.left_out == {"captions that are empty or no text": 3}

    def test_in_a_shard(self, tmp_path):
        document = json.dumps({"captions": ["x", None, " ", "y"]}).encode()
        write_tar(tmp_path / "0.tar", [("a.png", PNG), ("a.txt", b"x"), ("a.json", document)])
        source = open_source(tmp_path)
        assert source[0].captions == ("x", "y")
        assert source.left_out == {"captions that are empty or no text": 2}

    @pytest.mark.parametrize(
        "content",
        ["file_name,text\na.png,x\nb.png,\nc.png,z", "file_name,text\r\na.png,x\r\nb.png,\r\nc.png,z"],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_in_a_csv_table(self, tmp_path, content, encoding):
        for name in "abc":
            write(tmp_path / f"{name}.png", PNG)
        write(tmp_path / "metadata.csv", content.encode(encoding))
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (3, 1)
        assert [broken["key"] for broken in report.first_broken] == ["b.png"]


class TestNames:
    @pytest.mark.parametrize("root", ["B\u00e4r", "Ba\u0308r"])
    @pytest.mark.parametrize(("stored", "text"), [("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")])
    def test_code_points_of_a_text_file_and_of_its_folder(self, tmp_path, root, stored, text):
        write(tmp_path / root / f"{stored}.png", PNG)
        write(tmp_path / root / f"{text}.txt", "x")
        report, _ = check_data(tmp_path / root)
        assert (report.pictures, report.broken, report.left_out) == (1, 0, {})

    @pytest.mark.parametrize("ending", ["TXT", "Txt"])
    def test_text_files_endings(self, tmp_path, ending):
        write_cub(tmp_path)
        for file in (tmp_path / "text").rglob("*.txt"):
            file.rename(file.with_suffix(f".{ending}"))
        assert check_data(tmp_path)[0].broken == 0

    def test_backslashes_in_lists(self, tmp_path):
        write_coco(tmp_path)
        file = tmp_path / "annotations" / "captions_train2014.json"
        document = json.loads(file.read_text())
        document["images"][0]["file_name"] = "sub\\a.jpg"
        file.write_text(json.dumps(document))
        write(tmp_path / "train2014" / "sub" / "a.jpg", encoded(picture(0)))
        assert check_data(tmp_path)[0].broken == 0

    def test_dfgan_s_pictures_of_other_endings(self, tmp_path):
        write_dfgan_coco(tmp_path)
        for file in (tmp_path / "images" / "train2014" / "jpg").iterdir():
            file.rename(file.with_suffix(".png"))
        assert check_data(tmp_path)[0].broken == 0


class TestRepeated:
    def test_lines_of_cub_s_lists(self, tmp_path):
        write_cub(tmp_path)
        before = [open_source(tmp_path)[index].key for index in range(6)]
        for name in ("images.txt", "bounding_boxes.txt", "train_test_split.txt"):
            file = tmp_path / "CUB_200_2011" / name
            last = file.read_text().splitlines()[-1].split()
            file.write_text(file.read_text() + " ".join(["2", *last[1:]]) + "\n")
        source = open_source(tmp_path)
        assert [source[index].key for index in range(6)] == before
        assert [*source.left_out.values()] == [1, 1, 1]

    def test_stems_of_two_endings_have_their_own_boxes(self, tmp_path):
        write_cub(tmp_path)
        cub = tmp_path / "CUB_200_2011"
        write(cub / "images" / f"{BIRDS[1]}.png", PNG)
        for name, line in (
            ("images", f"13 {BIRDS[1]}.png"),
            ("bounding_boxes", "13 0 0 8 8"),
            ("train_test_split", "13 1"),
        ):
            with (cub / f"{name}.txt").open("a") as file:
                file.write(f"{line}\n")
        source = open_source(tmp_path)
        assert source[6].picture.size == (10, 10)
        assert source[0].picture.size != (10, 10)

    def test_dfgan_s_keys(self, tmp_path):
        write_dfgan_coco(tmp_path)
        file = tmp_path / "train" / "filenames.pickle"
        keys = pickle.loads(file.read_bytes())
        file.write_bytes(pickle.dumps(keys + keys[:2]))
        source = open_source(tmp_path)
        assert (len(source), source.left_out) == (5, {"keys listed a second time": 2})


class TestBoxes:
    @pytest.mark.parametrize("writer", [write_cub, write_dfgan_birds])
    @pytest.mark.parametrize("box", ["", "2 nan 0 5 5\n", "2 900 900 5 5\n", "2 0 0 0 0\n"])
    def test_one_that_cannot_be_used_is_one_broken_picture(self, tmp_path, writer, box):
        writer(tmp_path)
        file = tmp_path / "CUB_200_2011" / "bounding_boxes.txt"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join([*lines[:1], box, *lines[2:]]))
        assert check_data(tmp_path)[0].broken == 1

    def test_without_any_the_birds_are_not_left_uncropped(self, tmp_path):
        write_dfgan_birds(tmp_path)
        (tmp_path / "CUB_200_2011" / "bounding_boxes.txt").write_text("99 0 0 5 5\n")
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (8, 8)


def test_a_folder_of_links_says_that_they_are_not_followed(tmp_path):
    good(tmp_path / "elsewhere", "a")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"\blink\b"):
        open_source(tmp_path / "set")


class TestEvaluation:
    def test_a_class_called_train_is_no_split(self, tmp_path):
        for name in ("bus", "car", "train"):
            write(tmp_path / name / "a.png", PNG)
        assert len(open_pictures(tmp_path)) == 3

    def test_a_split_that_is_not_there(self, tmp_path):
        for name in ("train", "val"):
            write(tmp_path / name / "a.png", PNG)
        assert len(open_pictures(tmp_path, split="val")) == 1
        with pytest.raises(UsageError, match="'test'"):
            open_pictures(tmp_path, split="test")

    def test_what_it_takes_is_what_training_takes(self, tmp_path):
        good(tmp_path, "a", "b")
        write(tmp_path / "c.png", PNG)
        write(tmp_path / "d.tif", PNG)
        for captioned in (True, False):
            pictures = open_pictures(tmp_path, captioned=captioned, skip_broken=True)
            assert (len(pictures), pictures.without_caption) == (2, 1)
            assert "c.txt" in pictures.examples[0]
            assert pictures.left_out == {"files ending in .tif": 1}
        report, _ = check_data(tmp_path)
        assert (report.pictures - report.broken, report.left_out) == (2, {"files ending in .tif": 1})
        assert len(open_pictures(tmp_path, plain=True)) == 3

    def test_stray_texts_make_no_data_set(self, tmp_path):
        write(tmp_path / "a.png", PNG)
        write(tmp_path / "README.txt", "no caption")
        assert len(open_pictures(tmp_path)) == 1


class TestShards:
    def test_a_sample_s_further_pictures_are_counted(self, tmp_path):
        write_tar(tmp_path / "0.tar", [("a.jpg", PNG), ("a.png", PNG), ("a.txt", b"x")])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)
        assert report.left_out_examples == {"further pictures of one sample in tars": ["a.jpg"]}

    def test_what_lies_between_a_sample_s_members_does_not_split_it(self, tmp_path):
        between = [("Thumbs.db", b"x"), ("._a.txt", b"x"), ("README.md", b"x"), ("__index__.json", b"{}")]
        write_tar(tmp_path / "0.tar", [("a.png", PNG), *between, ("a.txt", b"x")])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken, sum(report.left_out.values())) == (1, 0, 4)

    def test_endings_of_tars_in_capitals(self, tmp_path):
        for name in ("0.tar", "1.TAR"):
            write_tar(tmp_path / name, [("a.png", PNG), ("a.txt", b"x")])
        assert len(open_source(tmp_path)) == 2

    @pytest.mark.parametrize("number", ["5", 5.5, True, None, -1])
    def test_numbers_of_pictures_that_are_none(self, tmp_path, number):
        write_tar(tmp_path / "0.tar", [("a.png", PNG), ("a.txt", b"x")])
        write(tmp_path / "0_stats.json", json.dumps({"successes": number}))
        assert count_pictures(tmp_path, "train") == 0
