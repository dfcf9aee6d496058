"""`galip data check`: what it says of a set, its exit code and its sheet."""

import json
import subprocess
import sys

import numpy as np
import pytest
from galip_runtime.errors import FileRefused, UsageError
from PIL import Image, ImageFont
from train.layout_fixtures import (
    WRITERS,
    encoded,
    picture,
    write,
    write_cub,
    write_folder,
    write_shards,
    write_tar,
)

from galip.cli import main
from galip.data import check
from galip.data import contact_sheet as sheets
from galip.data.captioned import CaptionedPicture
from galip.data.check import check_data
from galip.data.contact_sheet import contact_sheet


@pytest.fixture
def run(capsys):
    """Runs the command; gives its exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as done:
            main(["data", "check", *map(str, arguments)])
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("decode", [True, False])
def test_every_layout(tmp_path, name, decode):
    WRITERS[name](tmp_path)
    report, pictures = check_data(tmp_path, decode=decode, samples=4)
    assert report.pictures >= 3
    assert (report.broken, report.decoded) == (0, decode)
    assert report.captions["min"] >= 1
    assert len(pictures) == min(report.pictures, 4)
    assert len({sample.key for sample in pictures}) == len(pictures)


def test_what_it_says(run, tmp_path):
    write_cub(tmp_path)
    code, out, err = run(tmp_path, "--split", "test")
    assert code == 0
    assert out == (
        f"{tmp_path}: layout cub, splits: train, test\n"
        "test: 6 pictures\n"
        "captions each: 10\n"
        "sizes: 40 x 40 to 64 x 64, most often 48 x 40\n"
        "broken: 0 (0.00%), all decoded\n"
    )
    assert "checking test 6/6" in err


def test_json(run, tmp_path):
    write_folder(tmp_path)
    write(tmp_path / "train" / "z.png", encoded(picture(2), "PNG"))
    write(tmp_path / "train" / "z.txt", "a blue disc")
    code, out, _ = run(tmp_path, "--json", "--no-decode")
    assert code == 0
    assert json.loads(out) == {
        "path": str(tmp_path),
        "layout": "folder",
        "splits": ["train", "val"],
        "split": "train",
        "pictures": 5,
        "captions": {"min": 1, "mean": 2.6, "max": 3},
        "sizes": {"smallest": [57, 33], "largest": [64, 64], "most_common": [64, 64]},
        "left_out": {},
        "left_out_examples": {},
        "decoded": False,
        "broken": 0,
        "broken_share": 0.0,
        "first_broken": [],
        "sheet": None,
    }


def test_broken_pictures_are_listed_and_the_exit_code_is_3(run, tmp_path):
    write_folder(tmp_path)
    for index in range(12):
        cut = encoded(picture(index), "PNG")[:-30]
        write(tmp_path / "train" / f"x{index:02}.png", cut)
        write(tmp_path / "train" / f"x{index:02}.txt", "cut off")
    code, out, err = run(tmp_path, "--json")
    assert code == 3
    report = json.loads(out)
    assert (report["pictures"], report["broken"], report["broken_share"]) == (16, 12, 0.75)
    assert [broken["key"] for broken in report["first_broken"]] == [
        f"train/x{index:02}.png" for index in range(10)
    ]
    assert all("broken picture" in broken["reason"] for broken in report["first_broken"])
    assert "galip: 12 of 16 pictures are broken, 75.0%; training stops above 1%" in err
    out = run(tmp_path)[1]
    assert "broken: 12 (75.00%), all decoded\n  train/x00.png: " in out
    assert out.endswith("  and 2 more\n")
    assert run(tmp_path, "--no-decode")[0] == 0, "their heads are whole"


def test_shards_are_gone_through_one_by_one(tmp_path, monkeypatch):
    write_shards(tmp_path, 3, 5)
    for file in tmp_path.glob("*_stats.json"):
        file.unlink()
    opened = []
    real = check.ShardSource
    monkeypatch.setattr(check, "ShardSource", lambda *given: opened.append(given[1]) or real(*given))
    said = []
    report, _ = check_data(tmp_path, progress=lambda *each: said.append(each))
    assert report.pictures == 15
    assert [[path.name for path in shards] for shards in opened] == [[f"0000{n}.tar"] for n in range(3)]
    assert said[0] == ("checking train", 1, 15)
    assert said[-1] == ("checking train", 15, 15)
    assert all(done < total for _, done, total in said[:-1])


def test_altered_and_empty_shards(tmp_path):
    write_tar(tmp_path / "0.tar", [])
    with pytest.raises(UsageError, match="'train'"):
        check_data(tmp_path)
    write_shards(tmp_path, 1, 2)
    size = (tmp_path / "00000.tar").stat().st_size
    (tmp_path / "0.tar").unlink()
    record = {"shards": [{"name": "00000.tar", "bytes": size, "sha256": "0"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(FileRefused, match=r"00000\.tar"):
        check_data(tmp_path)


def test_samples_are_drawn_from_everywhere_and_are_the_same_each_time(tmp_path):
    write_shards(tmp_path, 6, 5)
    keys = [[sample.key for sample in check_data(tmp_path, samples=8)[1]] for _ in range(2)]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 8
    assert len({key[:5] for key in keys[0]}) >= 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "nowhere"),
        (["set", "--split", "test"], 2, "'test'"),
        (["set", "--layout", "imagenet"], 2, "'imagenet'"),
        (["set", "--sheet", "sheet.jpg"], 2, "sheet.jpg"),
        (["set", "--sheet", "no/sheet.png"], 2, "no"),
        (["without"], 4, "a.png"),
    ],
)
def test_mistakes(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "set")
    write(tmp_path / "without" / "a.png", encoded(picture(0), "PNG"))
    status, out, err = run(*arguments)
    assert (status, out) == (code, "")
    assert message in err


# The sheet


def test_a_sheet_is_written_whole(run, tmp_path):
    write_folder(tmp_path)
    file = tmp_path / "sheet.png"
    code, out, _ = run(tmp_path, "--sheet", file, "--json")
    assert code == 0
    assert json.loads(out)["sheet"] == str(file)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] == sheets.GAP + 4 * (sheets.CELL + sheets.GAP)
        assert picture.getpixel((2, 2)) == (255, 255, 255)
    assert list(tmp_path.glob(".sheet*")) == []


def captioned(size=(64, 64), caption="a caption", colour="red"):
    return CaptionedPicture("k", Image.new("RGB", size, colour), (caption,))


def test_pictures_lie_in_rows_and_fill_their_cells():
    sheet = np.asarray(contact_sheet([captioned(), captioned((200, 20)), captioned((5, 500))], columns=2))
    step, middle = sheets.CELL + sheets.GAP, sheets.GAP + sheets.CELL // 2
    assert (sheet[middle, middle] == (255, 0, 0)).all()
    wide = (sheet[:, middle + step] == (255, 0, 0)).all(axis=1).sum()
    assert 18 <= wide <= 22  # 20/200 of a cell's height
    below = sheet[sheets.GAP + sheets.CELL + 4 :, middle]
    assert (below == (255, 0, 0)).all(axis=1).sum() == 208  # the third, in the second row


@pytest.mark.parametrize(
    "caption",
    ["word " * 200, "x" * 4000, "a " + "tremendouslylong" * 9, "ein grüner Bär 🐻", "赤いりんご" * 30, "."],
)
def test_captions_are_wrapped_within_their_cell(caption):
    font = ImageFont.load_default(size=sheets.TEXT)
    lines = sheets._wrapped(caption, font)
    assert 1 <= len(lines) <= sheets.LINES
    assert all(0 < font.getlength(line) <= sheets.CELL for line in lines)
    if len(caption) < 20:
        assert lines == [caption]
    assert contact_sheet([captioned(caption=caption)]).width == 2 * sheets.GAP + sheets.CELL


def test_checking_needs_no_torch():
    code = "import sys, galip.data.check, galip.data.contact_sheet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
