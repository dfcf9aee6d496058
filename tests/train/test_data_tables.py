"""Tables of captions in a plain folder: what they say, and what a malformed line costs."""

import json

import pytest
from galip_runtime.errors import FileRefused, QualityGateFailed
from galip_runtime.tokenizer import Tokenizer
from train.layout_fixtures import encoded, picture, write

from galip.data.check import check_data
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.data.sources import open_source
from galip.metrics.pictures import check_broken, open_pictures

PNG = encoded(picture(0), "PNG")

pytestmark = pytest.mark.timeout(60)


def good(folder, *names):
    for name in names:
        write(folder / f"{name}.png", PNG)
        write(folder / f"{name}.txt", f"a disc {name}")


def loader(folder, **options):
    config = LoaderConfig(str(folder), **{"batch_size": 1, **options})
    return TrainingLoader(config, size=16, tokenizer=Tokenizer([], context_length=40))


def test_a_caption_in_quotes_has_commas_and_lines(tmp_path):
    good(tmp_path, "a")
    write(tmp_path / "metadata.csv", 'file_name,text,source\ra.png,"x, ""y""\u2028z",drawn\r')
    picture = open_source(tmp_path)[0]
    assert (picture.captions, picture.meta) == (('x, "y"\u2028z',), {"source": "drawn"})


def test_numbers_are_numbers_for_conditions_and_captions_are_text(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.png", PNG)
    write(tmp_path / "metadata.csv", "file_name,text,width,code\na.png,7,640,007\nb.png,8,64.5,x\n")
    source = open_source(tmp_path)
    assert [source.captions(index) for index in range(2)] == [("7",), ("8",)]
    assert [source.meta(index) for index in range(2)] == [
        {"width": 640, "code": "007"},
        {"width": 64.5, "code": "x"},
    ]
    assert len(loader(tmp_path, exclude=("width>100",))) == 1
    assert len(loader(tmp_path, exclude=("nothing=None",))) == 2


def test_a_caption_cut_at_a_comma_is_refused_with_its_line(tmp_path):
    good(tmp_path, "a")
    write(tmp_path / "metadata.csv", "file_name,text\na.png,a red, round disc\n")
    with pytest.raises(FileRefused, match="line 2"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        ('{"file": "b.png", "caption": "x', "no JSON object", "Unterminated string"),
        ('["b.png", "x"]', "no JSON object", '["b.png", "x"]'),
        ('{"caption": "x"}', "without a picture's name", "None"),
        ('{"file": 5, "caption": "x"}', "without a picture's name", "5"),
        ('{"file": "", "caption": "x"}', "without a picture's name", "''"),
        ('{"file": "b.png", "captions": 5}', "whose captions are no list", "5"),
    ],
)
def test_a_malformed_line_costs_its_picture(tmp_path, line, kind, reason):
    """Its picture has no caption then, so it is broken; a picture with text of its own is not."""
    good(tmp_path, "a", "c")
    write(tmp_path / "b.png", PNG)
    write(tmp_path / "sub" / "x.png", PNG)
    for folder, name in ((tmp_path, "a"), (tmp_path / "sub", "x")):
        last = json.dumps({"file_name": f"{name}.png", "text": "last"})
        write(folder / "metadata.jsonl", f"\n{line}\n{last}\n")
    report, _ = check_data(tmp_path)
    assert (report.pictures, report.broken) == (4, 1)
    assert [broken["key"] for broken in report.first_broken] == ["b.png"]
    ((name, examples),) = report.left_out_examples.items()
    assert kind in name
    assert report.left_out == {name: 2}
    for where, example in zip(("metadata.jsonl", "sub/metadata.jsonl"), examples, strict=True):
        assert example.startswith(f"{where}, line 2: ")
        assert reason in example


@pytest.mark.parametrize(
    ("row", "kind", "number"),
    [
        ("b.png,a red, round disc", "with more or fewer cells than the head", 2),
        ("b.png", "with more or fewer cells than the head", 2),
        (",x", "without a picture's name", 2),
        (f'b.png,"{"x" * 140_000}', "no CSV", 2),
    ],
    ids=["more cells", "fewer cells", "no name", "open quotes"],
)
def test_a_malformed_row_costs_its_picture(tmp_path, row, kind, number):
    for name in "abc":
        write(tmp_path / f"{name}.png", PNG)
    write(tmp_path / "metadata.csv", f"file_name,text\n{row}\n\na.png,x\n,\nc.png,y\n")
    report, _ = check_data(tmp_path)
    assert [broken["key"] for broken in report.first_broken] == ["b.png"]
    ((name, (example,)),) = report.left_out_examples.items()
    assert kind in name
    assert example.startswith(f"metadata.csv, line {number}: ")


def test_too_many_malformed_lines_stop_check_training_and_evaluation(tmp_path):
    for name in range(120):
        write(tmp_path / f"{name}.png", PNG)
    lines = [json.dumps({"file": f"{name}.png", "text": "x"}) for name in range(120)]
    write(tmp_path / "captions.jsonl", "\n".join([*lines[:100], *(line[:-3] for line in lines[100:])]))
    report, _ = check_data(tmp_path)
    assert report.broken == 20
    (left_out,) = (line for line in report.lines() if "JSON" in line)
    assert ("20 lines" in left_out, "captions.jsonl, line 101" in left_out) == (True, True)
    few, many = (loader(tmp_path, max_broken=share, batch_size=40) for share in (0.2, 0.1))
    assert few.left_out.lines() == [left_out]
    assert [few.batch(step).pictures.shape[0] for step in range(3)] == [40] * 3
    with pytest.raises(QualityGateFailed, match="20 of 120"):
        [many.batch(step) for step in range(4)]
    pictures = open_pictures(tmp_path, captioned=True, skip_broken=True)
    assert (len(pictures), pictures.without_caption) == (100, 20)
    assert pictures.left_out.lines() == [left_out]
    with pytest.raises(QualityGateFailed, match="20 of 120"):
        check_broken(tmp_path, pictures.without_caption, 120, pictures.examples)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.jsonl", "a red disc\n{\n", r"captions\.jsonl, line 1: .*nor can another"),
        ("metadata.csv", "file_name,text\na.png\n", r"metadata\.csv, line 2: .*nor can another"),
        ("captions.jsonl", b"\x89PNG\r\n\x00\xff", r"captions\.jsonl cannot be read.*UTF-8"),
    ],
)
def test_a_table_without_a_usable_line_is_refused(tmp_path, name, content, message):
    good(tmp_path, "a")
    write(tmp_path / name, content)
    with pytest.raises(FileRefused, match=message):
        open_source(tmp_path)


def test_a_line_that_leads_outside_still_refuses_the_table(tmp_path):
    good(tmp_path / "set", "a")
    write(tmp_path / "set" / "captions.jsonl", '{"file": "a.png"}\n{"file": "../a.png", "text": "x"}')
    with pytest.raises(FileRefused, match=r"line 2: .*\.\./a\.png"):
        open_source(tmp_path / "set")


def test_a_table_of_something_else_is_left_out(tmp_path):
    good(tmp_path, "a")
    write(tmp_path / "metadata.csv", "name;colour\na.png;red\n")
    report, _ = check_data(tmp_path)
    assert (report.pictures, report.broken, [*report.left_out.values()]) == (1, 0, [1])


def test_a_table_without_captions_leaves_text_files_theirs(tmp_path):
    good(tmp_path, "a")
    write(tmp_path / "metadata.jsonl", '{"file_name": "a.png", "label": 3}')
    picture = open_source(tmp_path)[0]
    assert (picture.captions, picture.meta) == (("a disc a",), {"label": 3})


def test_tables_lie_at_any_depth_and_are_joined(tmp_path):
    write(tmp_path / "c" / "a.png", PNG)
    write(tmp_path / "c" / "metadata.jsonl", '{"file_name": "a.png", "text": "x"}')
    write(tmp_path / "captions.jsonl", '{"file": "c\\\\a.png", "text": "y"}')
    assert set(open_source(tmp_path)[0].captions) == {"x", "y"}


def test_a_line_of_a_missing_picture_is_one_broken_picture(tmp_path):
    good(tmp_path, "a")
    write(tmp_path / "captions.jsonl", '{"file": "a.png", "text": "x"}\n{"file": "no.png", "text": "x"}')
    report, _ = check_data(tmp_path)
    assert (report.pictures, report.broken) == (2, 1)
    assert report.first_broken[0]["key"] == "no.png"


def test_a_split_s_lines_are_its_own(tmp_path):
    good(tmp_path / "train", "a")
    good(tmp_path / "val", "b")
    lines = [{"file": f"{name}.png", "text": "x"} for name in ("train/a", "val/b", "val/missing")]
    write(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, lines)))
    reports = [check_data(tmp_path, split=split)[0] for split in ("train", "val")]
    assert [(report.pictures, report.broken) for report in reports] == [(1, 0), (2, 1)]
