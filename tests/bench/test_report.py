"""The report as a file: its schema, and what is refused."""

import copy
import dataclasses
import json

import jsonschema
import pytest
from galip_bench import BenchConfig, Report
from galip_bench.report import SCHEMA, config_of, read_report, schema
from galip_runtime.errors import FileRefused, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

MEASURED = "bundle-cpu-fp32"


@pytest.fixture
def written(report, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(Report(**report).to_json())
    return file


def test_a_report_fits_its_schema(report, written):
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema"]["const"] == SCHEMA
    assert read_report(written) == json.loads(json.dumps(report))


def test_the_schema_has_every_field():
    document = schema()
    assert set(document["required"]) == {each.name for each in dataclasses.fields(Report)}
    config = document["properties"]["config"]
    assert set(config["required"]) == {each.name for each in dataclasses.fields(BenchConfig)}
    from galip_bench.fid import FidParity
    from galip_bench.fresh import Fresh
    from galip_bench.parity import Parity
    from galip_bench.summary import Summary

    for name, made in (("parity", Parity), ("fid", FidParity), ("fresh", Fresh), ("summary", Summary)):
        assert set(document["$defs"][name]["required"]) == {each.name for each in dataclasses.fields(made)}


def test_a_result_can_be_repeated(written, config):
    assert config_of(read_report(written)) == config(launches=2)


def places(value, path=()):
    """All places in a report but what `info` holds, which is free."""
    if path:
        yield path
    if isinstance(value, dict) and path[-1:] != ("info",):
        for key, each in value.items():
            yield from places(each, (*path, key))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_something_else_in_any_place_is_refused(data, report, tmp_path_factory):
    document = json.loads(json.dumps(report))
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


def test_what_is_refused(written, tmp_path):
    file = tmp_path / "x.json"
    for content, message in (
        ("{", "is no JSON"),
        ("", "is no JSON"),
        ("[]", "is no report"),
        ("[" * 100_000, "is no JSON"),
        ('{"subjects": {}}', "schema None"),
    ):
        file.write_text(content)
        with pytest.raises(FileRefused, match=message):
            read_report(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileRefused, match="is no JSON"):
        read_report(file)
    document = json.loads(written.read_text())
    damaged = copy.deepcopy(document)
    damaged["subjects"]["eager-fp32"]["latency"]["1"]["samples"]["total"] = "fast"
    file.write_text(json.dumps(damaged))
    with pytest.raises(FileRefused, match=r"is a damaged report: .*total"):
        read_report(file)
    for change, message in (
        (lambda each: each.update(reference="x"), "the reference x was not measured"),
        (lambda each: each.update(launches=[3, 4]), "has not 7 samples"),
        (lambda each: each["subjects"][MEASURED]["latency"].pop("3"), "was measured at batch"),
        (lambda each: each.update(seconds=float("nan")), "NaN is no number"),
    ):
        damaged = copy.deepcopy(document)
        change(damaged)
        file.write_text(json.dumps(damaged))
        with pytest.raises(FileRefused, match=message):
            read_report(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_report(tmp_path / "nothing.json")
