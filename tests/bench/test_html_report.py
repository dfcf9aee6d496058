"""The report as an HTML page: what is where, and that it holds any report."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from galip_bench import read_report
from galip_bench.html_report import html_report
from galip_bench.notes import answer, headlines, speed_of
from galip_bench.tables import tables

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
FASTEST = "bundle-openvino-bf16"


class Page(HTMLParser):
    """The texts of a page, each with the tags and classes around it."""

    VOID = ("meta", "line", "circle", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("class") or ""))

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        self.texts.append((text, [tag for tag, _ in self.open], [name for _, name in self.open]))

    def of_class(self, name):
        return [text for text, _, classes in self.texts if name in classes]


@pytest.fixture(scope="module")
def result():
    return read_report(RESULTS / "cpu_default_latency.json")


@pytest.fixture(scope="module")
def page(result):
    return Page(html_report(result))


def with_ratio(report, name, *, noisy=False, **changes):
    """Return the report with another ratio of a subject at the first batch size."""
    batch, subject = str(report.config.batch[0]), report.subjects[name]
    ratio = dataclasses.replace(subject.latency[batch].ratio, **changes)
    latency = {**subject.latency, batch: dataclasses.replace(subject.latency[batch], ratio=ratio)}
    subjects = {**report.subjects, name: dataclasses.replace(subject, latency=latency)}
    noise = dataclasses.replace(report.noise, noisy=noisy)
    return dataclasses.replace(report, subjects=subjects, noise=noise)


def test_answer_and_chart_come_first(page, result):
    head, said = " ".join(page.of_class("head")), " ".join(page.of_class("answer"))
    for value in (result.models.checkpoint.name, result.started[:10], result.machine.cpu, "2 threads"):
        assert value in head
    assert FASTEST in said
    assert "1.70×" in said
    kinds = [*((2, name) for name in ("head", "answer", "bars")), (1, "table"), (2, "plot")]
    order = [
        next(number for number, text in enumerate(page.texts) if kind in text[place]) for place, kind in kinds
    ]
    assert order == sorted(order)
    assert page.of_class("bars")[0] == FASTEST
    assert set(result.subjects) <= set(page.of_class("bars"))


def test_no_label_is_in_a_picture_that_could_cut_it(page):
    """Text in SVG has a place, but no width: a page can only let it run out. Numbers of a scale may."""
    drawn = [text for text, tags, _ in page.texts if "svg" in tags]
    assert drawn
    assert [text for text in drawn if not re.fullmatch(r"[\d.]+", text)] == []


def test_the_ratio_is_what_a_phone_shows_beside_the_time(result):
    latency = [columns for title, columns, _ in tables(result) if title.startswith("Latency")]
    assert [columns[1:3] for columns in latency] == [["p50", f"× {result.reference}"]] * len(latency)


def numbers_beside(page, label):
    """Return the numbers of the scale that has `label` on it, too, from the top."""
    texts = page.of_class("left")
    after = texts[texts.index(label) + 1 :]
    return [float(text) for text in after if re.fullmatch(r"[\d.]+", text)]


def test_the_scale_of_psnr_begins_where_values_are(page, result):
    values = [subject.parity.psnr_min for subject in result.subjects.values() if subject.parity.psnr_min]
    scale = numbers_beside(page, "equal")
    step = scale[0] - scale[1]
    assert min(values) - step < scale[-1] <= min(values)
    assert max(values) <= scale[0] < max(values) + step


@pytest.mark.parametrize("decibels", [{}, {FASTEST: 48.5}, {FASTEST: 48.5, "bundle-cpu-fp32": 48.5}])
def test_the_scale_of_psnr_where_few_pictures_differ(result, decibels):
    subjects = {
        name: dataclasses.replace(
            subject, parity=dataclasses.replace(subject.parity, psnr_min=decibels.get(name))
        )
        for name, subject in result.subjects.items()
    }
    scale = numbers_beside(Page(html_report(dataclasses.replace(result, subjects=subjects))), "equal")
    assert len(scale) >= 2 * bool(decibels)
    assert all(scale[-1] <= value <= scale[0] for value in decibels.values())


@pytest.mark.parametrize(
    ("changes", "speed", "values"),
    [
        ({"median": 1 / 16, "rerun_interval_95": (1 / 63, 1 / 5), "noisy": True}, "16× faster",
         ["5 to 63×", "noisy", "repeat"]),
        ({"median": 0.625, "rerun_interval_95": (0.6, 0.65)}, "1.60× faster", ["1.54 to 1.67×"]),
        ({"median": 0.625, "rerun_interval_95": (0.3, 1.2)}, "1.60× faster", ["0.83 to 3.3×", "repeat"]),
        ({"median": 3.0, "rerun_interval_95": (2.0, 3.5)}, "3× slower", ["2 to 3.5×"]),
        ({"median": 0.25, "rerun_interval_95": (0.2, 0.5001)}, "4× faster", [" 2 to 5×", "repeat"]),
        ({"median": 1.01, "rerun_interval_95": (0.9, 1.1)}, "as fast", ["0.91 to 1.11×"]),
        ({"median": 0.5, "interval_95": (0.4, 0.6), "rerun_interval_95": None}, "2× faster",
         ["1.67 to 2.5×", "one process"]),
    ],
)  # fmt: skip
def test_a_ratio_in_words(result, changes, speed, values):
    report = with_ratio(result, FASTEST, **changes)
    assert speed_of(report, FASTEST, 1) == speed
    (line,) = [line for line in headlines(report) if line.startswith(f"{FASTEST}:")]
    for value in (speed, *values):
        assert value in line
        assert value in answer(report)


def test_a_report_without_a_bundle(result):
    kept = {name: result.subjects[name] for name in ("eager-fp32", "compiled-fp32")}
    text = html_report(dataclasses.replace(result, subjects=kept))
    assert Page(text).of_class("bars")
    assert "eager-fp32" in answer(dataclasses.replace(result, subjects=kept))


def test_names_are_shown_as_they_are(result):
    odd = "bundle-<b>&\u0007" + "x" * 80
    subjects = {odd if name == FASTEST else name: subject for name, subject in result.subjects.items()}
    page = Page(html_report(dataclasses.replace(result, subjects=subjects)))
    shown = [text for text in page.of_class("bars") if text.endswith("x" * 80)]
    assert [text.startswith("bundle-<b>&") for text in shown] == [True]
