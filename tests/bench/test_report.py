"""The report as a file: its schema, and what is refused."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
from galip_bench import BenchConfig, Report
from galip_bench.machine import Gpu, Machine
from galip_bench.models import BundleFacts, CheckpointFacts, ModelFacts
from galip_bench.report import (
    SCHEMA,
    ColdStart,
    FidParity,
    FidSettings,
    Latency,
    MachineNoise,
    Parity,
    SubjectReport,
    read_report,
    schema,
)
from galip_bench.statistics import Ratio, Summary
from galip_runtime.errors import FileRefused, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

MEASURED = "bundle-cpu-fp32"
RESULTS = Path(__file__).parents[2] / "benchmarks/results"


@pytest.fixture
def written(report, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(report.to_json())
    return file


def test_a_report_fits_its_schema(report, written):
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema"]["const"] == SCHEMA
    assert read_report(written) == report
    jsonschema.validate(json.loads(written.read_text()), schema())


def is_report(file):
    return "benchmark" not in json.loads(file.read_text())  # a study names itself


@pytest.mark.parametrize(
    "file", [file for file in sorted(RESULTS.glob("*.json")) if is_report(file)], ids=lambda file: file.name
)
def test_a_result_is_written_as_it_was_read(file):
    assert read_report(file).to_json() == file.read_text()


def test_the_schema_has_every_field():
    document = schema()
    part, parts = document["$defs"], document["properties"]
    gpu, fid = (
        next(each for each in place["anyOf"] if each["type"] == "object")
        for place in (parts["machine"]["properties"]["gpu"], parts["fid"])
    )
    for place, kind in (
        (document, Report), (parts["config"], BenchConfig), (parts["machine"], Machine), (gpu, Gpu),
        (fid, FidSettings), (parts["noise"], MachineNoise), (parts["models"], ModelFacts),
        (parts["models"]["properties"]["checkpoint"], CheckpointFacts),
        (parts["models"]["properties"]["bundle"], BundleFacts),
        (part["subject"], SubjectReport), (part["parity"], Parity), (part["fid"], FidParity),
        (part["fresh"], ColdStart), (part["summary"], Summary), (part["latency"], Latency),
        (part["latency"]["properties"]["ratio"], Ratio),
    ):  # fmt: skip
        assert set(place["required"]) == {field.name for field in dataclasses.fields(kind)}, kind


def test_a_result_can_be_repeated(written, config):
    assert read_report(written).config == config(launches=2)


def places(value, path=()):
    """Yield all places in a report except what `info` holds, which is free."""
    if path:
        yield path
    if isinstance(value, dict) and path[-1:] != ("info",):
        for key, item in value.items():
            yield from places(item, (*path, key))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_something_else_in_any_place_is_refused(data, report, tmp_path_factory):
    document = json.loads(report.to_json())
    paths = [path for path in places(document) if path[-1] != "info"]
    *folder, last = data.draw(st.sampled_from(paths))
    parent = document
    for key in folder:
        parent = parent[key]
    parent[last] = data.draw(
        st.sampled_from([{"unlikely": []}, [{}], True]).filter(lambda new: new != parent[last])
    )
    file = tmp_path_factory.mktemp("damaged") / "x.json"
    file.write_text(json.dumps(document))
    with pytest.raises(FileRefused, match=r"x\.json"):
        read_report(file)


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"[]", b"[" * 100_000, b'{"subjects": {}}', b"\xff\xfe\x00"],
    ids=["cut off", "empty", "a list", "deep", "no schema", "not text"],
)
def test_what_is_no_report_is_refused(content, tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(FileRefused, match=r"x\.json"):
        read_report(file)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (
            lambda report: report["subjects"]["eager-fp32"]["latency"]["1"]["samples"].update(total="fast"),
            "fast",
        ),
        (lambda report: report.update(schema=99), "99"),
        (lambda report: report.update(reference="x"), "x"),
        (lambda report: report.update(launches=[3, 4]), "7"),
        (lambda report: report["subjects"][MEASURED]["latency"].pop("3"), "3"),
        (lambda report: report.update(seconds=float("nan")), "NaN"),
        (lambda report: report["config"].update(launches=2000), "2000"),
    ],
)
def test_a_damaged_report_is_refused(change, value, document, tmp_path):
    file = tmp_path / "x.json"
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(FileRefused, match=rf"x\.json.*\b{value}\b"):
        read_report(file)


def test_a_report_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.json"):
        read_report(tmp_path / "nothing.json")
