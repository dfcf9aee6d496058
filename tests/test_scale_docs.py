"""The figures in docs/scale.md follow from the measured ones that it names."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
ROWS = {
    "shipped, 128 pixels | cpu, w16a32": ("cpu_default_latency", "bundle-cpu-w16a32"),
    "shipped, 128 pixels | openvino, bf16": ("cpu_default_latency", "bundle-openvino-bf16"),
    "full size, 224 pixels | cpu, w16a32": ("cpu_full_latency", "bundle-cpu-w16a32"),
    "full size, 224 pixels | openvino, int8": ("cpu_full_latency", "bundle-openvino-int8"),
}


def number(cell):
    return float(cell.replace(",", ""))


@pytest.mark.parametrize("name", ROWS)
def test_throughput(name):
    file, subject = ROWS[name]
    measured = json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text())
    assert measured["machine"]["usable_cores"] == measured["threads"] == 2
    seconds = measured["subjects"][subject]["latency"]["8"]["seconds"]["total"]["p50"] / 8
    cells = re.search(rf"^\| {re.escape(name)} \| (.*) \|$", TEXT, re.MULTILINE)[1].split(" | ")
    milliseconds, a_second, core_hours = map(number, cells)
    assert milliseconds == pytest.approx(1000 * seconds, abs=0.06)
    assert a_second == pytest.approx(1 / seconds, rel=0.01)
    assert core_hours == pytest.approx(2e9 * seconds / 3600, abs=1)


def test_storage():
    measured = json.loads((ROOT / "benchmarks" / "results" / "sets_default.json").read_text())["bytes"]
    rows = re.findall(
        r"^\| (PNG|JPEG|WebP)[^|]*\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) TB \|$", TEXT, re.MULTILINE
    )
    assert [name.lower() for name, *_ in rows] == list(measured)
    for name, *cells in rows:
        file, stored, terabytes = map(number, cells)
        assert file == pytest.approx(measured[name.lower()]["picture"], abs=1)
        assert stored == pytest.approx(measured[name.lower()]["in_a_shard"], abs=1)
        assert terabytes == pytest.approx(stored / 1000, abs=0.05)
