"""Blind judgement: pages without labels, in random order, and answers scored by the key of these pages."""

import json

import numpy as np
import pytest
from galip_runtime.errors import FileRefused, UsageError
from icons import CARD, judging
from icons.judging import CELL, naming_pages, pair_pages, score
from icons.naming import SYNONYMS, is_named, named_things
from PIL import Image

from galip.assets import STYLES

THINGS = ["a dog", "an automobile", "a star", "a red heart", "cooked rice"]


class Plain:
    """A stand-in of a model whose pictures are all of one grey level."""

    def __init__(self, level, side=16):
        self.level, self.side = level, side

    def generate(self, prompts, seeds):
        return np.full((len(prompts), self.side, self.side, 3), self.level, np.uint8)


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "pages", tmp_path / "key.json"


def make_pairs(paths, **options):
    pair_pages(Plain(40), Plain(200), THINGS, *paths, **{"styles_per_thing": 2, **options})
    return json.loads(paths[1].read_text())


def answered(path, answers):
    path.write_text(json.dumps(answers))
    return path


def test_pairs_are_shown_as_the_key_says(paths):
    key = make_pairs(paths)
    folder = paths[0]
    assert len(key["items"]) == 10
    assert {item["prompt"] for item in key["items"].values()} == {
        f"{thing}, {STYLES[i + j]}" for i, thing in enumerate(THINGS) for j in (0, 1)
    }
    assert len(key["pages"]) == 2
    page = np.asarray(Image.open(folder / "page_01.png"))
    rows = page.shape[0] // judging.PAGE["pairs"][1]
    for number in range(8):
        row, column = divmod(number, 2)
        half = page[row * rows :][:rows, column * page.shape[1] // 2 :][:, : page.shape[1] // 2, 0]
        darkest, brightest = ((half == level).nonzero()[1].mean() for level in (40, 200))
        assert key["items"][str(number + 1)]["left"] == ("old" if darkest < brightest else "new")
        assert (half == 40).sum() == pytest.approx(CELL**2, abs=9)  # the number is drawn smoothly


def test_judges_are_told_nothing(paths):
    make_pairs(paths, order=3)
    names = sorted(path.name for path in paths[0].iterdir())
    assert names == ["form.json", "key.sha256", "page_01.png", "page_02.png", "question.txt"]
    form = json.loads((paths[0] / "form.json").read_text())
    assert form == {str(number): "" for number in range(1, 11)}
    assert not Image.open(paths[0] / "page_01.png").info
    text = (paths[0] / "question.txt").read_text().lower()
    assert "new" not in text
    assert "old" not in text


def test_order_and_sides_are_random_and_repeatable(tmp_path):
    keys = [
        make_pairs((tmp_path / f"{name}", tmp_path / f"{name}.json"), order=order, styles_per_thing=7)
        for name, order in (("a", None), ("b", None), ("c", 5), ("d", 5))
    ]
    assert keys[0]["items"] != keys[1]["items"]
    assert keys[2] == keys[3]
    for key in keys:
        items = list(key["items"].values())
        assert [item["prompt"] for item in items] != key["asked"]
        assert 5 <= sum(item["left"] == "new" for item in items) <= 30  # of 35


def test_prompts_can_be_shown(tmp_path):
    pages = []
    for name in ("with", "without"):
        make_pairs((tmp_path / name, tmp_path / f"{name}.json"), order=1, with_prompts=name == "with")
        pages.append(np.asarray(Image.open(tmp_path / name / "page_01.png")))
    assert pages[0].shape == pages[1].shape
    assert (pages[0] == 0).sum() > 2 * (pages[1] == 0).sum()


def test_preferences_are_scored_by_the_key(paths, tmp_path):
    key = make_pairs(paths, facts={"models": {"old": "1", "new": "2"}})
    items = key["items"]
    new = {number: "left" if item["left"] == "new" else "right" for number, item in items.items()}
    other = {"left": "right", "right": "left"}
    mixed = new | {"1": other[new["1"]], "2": "Equal"}
    files = [answered(tmp_path / "a.json", new), answered(tmp_path / "b.json", mixed)]
    result = score(*paths, files)
    assert result["judges"] == [
        {"new": 10, "old": 0, "equal": 0, "share_new": 1.0},
        {"new": 8, "old": 1, "equal": 1, "share_new": 0.8},
    ]
    assert result["models"] == {"old": "1", "new": "2"}
    assert list(result["answers"]) == key["asked"]
    assert result["answers"][items["1"]["prompt"]] == ["new", "old"]
    assert result["answers"][items["2"]["prompt"]] == ["new", "equal"]


def test_a_forged_key_is_refused(paths, tmp_path):
    key = make_pairs(paths)
    answers = answered(tmp_path / "a.json", dict.fromkeys(key["items"], "left"))
    score(*paths, [answers])
    for item in key["items"].values():
        item["left"], item["right"] = "new", "old"
    answered(paths[1], key)
    with pytest.raises(FileRefused, match="not the key"):
        score(*paths, [answers])


def test_changed_pages_are_refused(paths, tmp_path):
    key = make_pairs(paths)
    answers = answered(tmp_path / "a.json", dict.fromkeys(key["items"], "left"))
    Image.new("RGB", (9, 9)).save(paths[0] / "page_02.png")
    with pytest.raises(FileRefused, match=r"page_02\.png"):
        score(*paths, [answers])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"3": ""}, "no answer for number 3"), ({"3": "both"}, "'both'"), ({"11": "left"}, "'11'")],
)
def test_answers_off_the_form_are_refused(paths, tmp_path, change, message):
    key = make_pairs(paths)
    with pytest.raises(FileRefused, match=message):
        score(*paths, [answered(tmp_path / "a.json", dict.fromkeys(key["items"], "left") | change)])


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_answers_must_be_a_json_object(paths, tmp_path, content):
    make_pairs(paths)
    if content:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(FileRefused, match=r"a\.json"):
        score(*paths, [tmp_path / "a.json"])


def test_the_key_is_kept_apart_and_nothing_is_overwritten(paths, tmp_path):
    with pytest.raises(UsageError, match="judges see"):
        make_pairs((tmp_path / "pages", tmp_path / "pages" / "key.json"))
    make_pairs(paths)
    with pytest.raises(UsageError, match="already"):
        make_pairs((paths[0], tmp_path / "other.json"))
    with pytest.raises(UsageError, match="already"):
        make_pairs((tmp_path / "other", paths[1]))


def test_names_are_scored_by_key_and_list(paths, tmp_path):
    naming_pages(Plain(90), THINGS, *paths)
    items = json.loads(paths[1].read_text())["items"]
    assert len(items) == len(THINGS) * len(STYLES)
    said = {"a dog": "Dog face", "an automobile": "a blue car", "a star": "sun", "a red heart": "heart"}

    def answer(item):
        few = item["thing"] == "a red heart" and item["style"] not in STYLES[:2]
        return "unclear" if few else said.get(item["thing"], "bowl of rice")

    answers = {number: answer(item) for number, item in items.items()}
    unclear = dict.fromkeys(items, "unclear")
    files = [answered(tmp_path / "a.json", answers), answered(tmp_path / "b.json", unclear)]
    result = score(*paths, files)
    assert result["judges"] == [
        {"named": 3, "of": 5, "others": ["a star", "a red heart"]},
        {"named": 0, "of": 5, "others": THINGS},
    ]
    assert list(result["answers"]) == THINGS
    styles = [style.removesuffix(" style") for style in STYLES]
    assert result["answers"]["an automobile"] == {style: ["a blue car", "unclear"] for style in styles}


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("an automobile", "Red car", True),
        ("an automobile", "truck", False),
        ("a white flower", "pink flower", True),
        ("a pizza", "pizza slice", True),
        ("a birthday cake", "cupcake", False),
        ("a national park", "landscape picture", False),
        ("a hot dog", "dog", False),
        ("a dog", "hot dog", False),
        ("a thinking face", "face", False),
        ("an orange", "orange", True),
        ("a yellow car", "automobile", True),
        ("a blue T-shirt", "red shirt", True),
        ("a green flower", "blossom", True),
    ],
)
def test_what_names_a_thing(prompt, answer, right):
    assert is_named(prompt, answer) == right


def test_synonyms_are_of_the_card_s_things():
    assert set(SYNONYMS) - {"a car"} <= set(json.loads((CARD / "commonest.json").read_text()))


def test_the_card_says_what_the_judges_named():
    judged = json.loads((CARD / "judged.json").read_text())
    card = " ".join((CARD.parent / "MODEL_CARD.md").read_text().split())
    first, second = (len(named_things(judged, judge)) for judge in (0, 1))
    assert f"One names {first} of the 40 things right in at least three styles, the other {second}" in card


def test_coloured_things_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "load_eager", lambda path: Plain(90))
    monkeypatch.setattr(judging, "commonest_things", lambda data: [])
    key = tmp_path / "key.json"
    places = ["--data", "data", "--out", str(tmp_path / "pages"), "--key", str(key)]
    judging.main(["naming", "default", "--coloured", *places])
    asked = json.loads(key.read_text())["asked"]
    assert len(asked) == 20
    assert {"a blue car", "a yellow T-shirt"} < set(asked)


def test_the_command(tmp_path, monkeypatch, capsys):
    class Thing:
        prompt = "a star"

    monkeypatch.setattr(judging, "load_eager", lambda path: Plain(90))
    monkeypatch.setattr(judging, "commonest_things", lambda data: [Thing])
    folder, key, out = tmp_path / "pages", tmp_path / "key.json", tmp_path / "out.json"
    places = ["--data", "data", "--out", str(folder), "--key", str(key)]
    judging.main(["naming", "default", *places])
    form = answered(tmp_path / "form.json", dict.fromkeys(json.loads(key.read_text())["items"], "Star"))
    judging.main(["score", str(folder), str(form), "--key", str(key), "--out", str(out)])
    assert json.loads(out.read_text()) == {
        "a star": {style.removesuffix(" style"): ["star"] for style in STYLES}
    }
    assert "names 1 of 1 things" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        judging.main(["pairs", "default", "default", *places])
    assert exit_.value.code == UsageError.exit_code
    assert "already" in capsys.readouterr().err
