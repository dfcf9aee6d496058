"""One definition of a usable sample for the check, training and evaluation; whatever is left out is counted."""

import json
import pickle

import pytest
from galip_runtime.tokenizer import Tokenizer
from train.layout_fixtures import encoded, picture, write, write_tar

from galip.data.check import check_data
from galip.data.layouts.shards import count_pictures
from galip.data.left_out import LeftOut
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.data.sources import open_source

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
        lines = loader(tmp_path, stream=stream).left_out()
        assert [("b.tif" in line, "._a.png" in line) for line in lines] == [
            (True, False),
            *([(False, True)] if stream == "no" else []),
        ]


class TestShards:
    def test_a_sample_s_further_pictures_are_counted(self, tmp_path):
        write_tar(tmp_path / "0.tar", [("a.jpg", PNG), ("a.png", PNG), ("a.txt", b"x")])
        report, _ = check_data(tmp_path)
        assert (report.pictures, report.broken) == (1, 0)
        assert report.left_out_examples == {"further pictures of one sample in tars": ["a.jpg"]}

    def test_endings_of_tars_in_capitals(self, tmp_path):
        for name in ("0.tar", "1.TAR"):
            write_tar(tmp_path / name, [("a.png", PNG), ("a.txt", b"x")])
        assert len(open_source(tmp_path)) == 2

    @pytest.mark.parametrize("number", ["5", 5.5, True, None, -1])
    def test_numbers_of_pictures_that_are_none(self, tmp_path, number):
        write_tar(tmp_path / "0.tar", [("a.png", PNG), ("a.txt", b"x")])
        write(tmp_path / "0_stats.json", json.dumps({"successes": number}))
        assert count_pictures(tmp_path, "train") == 0
