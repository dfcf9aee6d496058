"""The tables of README and docs are those of the result files."""

import json
from pathlib import Path

import pytest
from galip_bench.report import read_report
from galip_bench.statistics import ratio_of
from studies.readme import RESULTS, rendered
from studies.rewrites import LEFT_OUT

ROOT = Path(__file__).parents[2]
QUOTED = {
    "README.md": ["cpu_default_latency.json", "devices"],
    "docs/devices.md": ["devices"],
    "benchmarks/README.md": ["peers_full_*.json", "peers_default_*.json"],
    "docs/results.md": [
        "training_default.json training_released.json",
        "fuzz.json",
        "serve_default.json serve_full.json",
        "serve_endurance.json",
        "sets_default.json",
        "fid_default.json",
        "cpu_full_latency.json",
        "cpu_default_latency.json",
        "cpu_full_operators.json",
        "cpu_default_operators.json",
        "cpu_full_kernels.json",
        "cpu_default_kernels.json",
        "cpu_full_rewrites.json cpu_default_rewrites.json",
        "cpu_full_options.json cpu_default_options.json",
    ],
}


@pytest.mark.parametrize("name", QUOTED)
def test_tables_are_those_of_the_results(name):
    text = (ROOT / name).read_text()
    assert rendered(text) == text
    for files in QUOTED[name]:
        assert f"<!-- {files} -->\n" in text


def test_blocks_are_filled_one_by_one():
    block = "<!-- cpu_default_latency.json -->\n<!-- end -->\n"
    text = rendered(f"{block}between\n{block}")
    assert text.count("| eager-fp32 |") == text.count("<!-- end -->") == 2
    assert text.index("eager-fp32") < text.index("between") < text.rindex("eager-fp32")
    assert rendered(text) == text


def test_a_pattern_is_a_table_for_each_file_that_there_is(tmp_path):
    block = "<!-- cpu_*.json -->\n<!-- end -->\n"
    assert "\n\nNot measured yet.\n\n" in rendered(block, tmp_path)
    for name in ("cpu_full_options.json", "cpu_default_options.json"):
        (tmp_path / name).write_bytes((RESULTS / name).read_bytes())
    assert "|  | 128 pixels | 224 pixels |" in rendered(block, tmp_path)


def test_another_result_is_another_table():
    text = (ROOT / "README.md").read_text()
    changed = text.replace("bundle-cpu-fp32 | ", "bundle-cpu-fp32 | 1")
    assert changed != text
    assert rendered(changed) == text


@pytest.mark.parametrize(
    "file",
    sorted([*RESULTS.glob("fid_*.json"), *RESULTS.glob("cpu_*_latency.json")]),
    ids=lambda file: file.name,
)
def test_results_are_what_a_clean_checkout_measured(file):
    report = read_report(file)
    assert not report.machine.commit.endswith("+")
    assert report.warnings == []
    for subject in report.subjects.values():
        assert subject.parity.not_finite == 0
    assert str(Path.home()) not in file.read_text()
    assert json.loads(file.read_text())["config"]["threads"] is None


@pytest.mark.parametrize(
    "file",
    sorted(
        [
            *RESULTS.glob("cpu_*_o*.json"),
            *RESULTS.glob("cpu_*_rewrites.json"),
            *RESULTS.glob("peers_*.json"),
        ]
    ),
    ids=lambda file: file.name,
)
def test_what_looks_into_a_cpu_is_of_a_clean_checkout(file):
    result = json.loads(file.read_text())
    assert not result["machine"]["commit"].endswith("+")
    assert str(Path.home()) not in file.read_text()


@pytest.mark.parametrize("subject", ["bundle-cpu-fp32", "bundle-openvino-bf16", "bundle-openvino-int8"])
def test_fid_stays(subject):
    """The bar that takes real pictures: at most half a percent of the shipped model's FID."""
    subjects = read_report(RESULTS / "fid_default.json").subjects
    assert abs(subjects[subject].fid.delta) <= 0.005 * subjects["eager-fp32"].fid.fid


@pytest.mark.parametrize(
    ("subject", "most"),
    [("cpu-fp32", 0.70), ("openvino-fp32", 0.63), ("openvino-bf16", 0.35), ("openvino-int8", 0.22)],
)
def test_the_released_size_is_so_much_faster(subject, most):
    """One picture, prompt to PNG, as a share of eager PyTorch in the released code's order."""
    subjects = read_report(RESULTS / "cpu_full_latency.json").subjects
    ours, released = (
        subjects[name].latency["1"].samples["total"] for name in (f"bundle-{subject}", "released-fp32")
    )
    assert ratio_of(ours, released).median <= most


def test_every_rewrite_pays_somewhere():
    found: dict[str, list[float]] = {}
    for size in ("full", "default"):
        result = json.loads((RESULTS / f"cpu_{size}_rewrites.json").read_text())
        for of_backend in result["seconds"].values():
            for name, samples in of_backend.items():
                found.setdefault(name, []).append(
                    ratio_of(samples["without"], samples["with"]).interval_95[0]
                )
    assert set(found) == set(LEFT_OUT)
    for name, least in found.items():
        assert max(least) > 1, name
