"""JSON into frozen dataclasses: every text that is not exactly right is refused, quickly and briefly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from error_checks import expect_error
from galip_runtime import FileRefused
from galip_runtime.bundle.decoding import MAX_DEPTH, parse, typed
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.integers(-(2**63), 2**64 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)  # fmt: skip


@given(VALUES, st.booleans())
def test_round_trip_with_json(value, escaped):
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse(text) == parse(text.encode()) == value


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "-1e400", str(2**64), str(-(2**63) - 1), "9" * 10**6),
        nested(MAX_DEPTH + 1), nested(MAX_DEPTH + 1, '[{"a":', "}]"), "[" * 10**6, '{"a":' * 10**5,
        '["]",' + "[" * 100, '["\\"]",' + nested(MAX_DEPTH) + "]", '"' * 10**6 + "[" * 10**6, '"\\' * 10**6,
        *('{"a": 1, "a": 1}', '[{"a": 1, "\\u0061": 1}]', "", "[1] 2", "'a'", b"\xff", b"\xed\xa0\x80"),
    ],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_invalid_json_is_refused_in_a_short_message(text):
    with expect_error(FileRefused) as info:
        parse(text)
    assert len(str(info.value)) < 300


@pytest.mark.parametrize(
    "text", [nested(MAX_DEPTH), json.dumps(["[" * 500, '"[' * 500, "\\[" * 500]), "[" + "[]," * 500 + "[]]"]
)
def test_only_nested_brackets_count_as_depth(text):
    assert parse(text) == json.loads(text)


@dataclass(frozen=True)
class Sample:
    name: str
    size: float
    count: int | None
    more: Mapping[str, int]
    free: Any


RIGHT = {"name": "a", "size": 1, "count": None, "more": {"b": 2}, "free": [None]}


def test_typed_values():
    assert typed(Sample, RIGHT) == Sample("a", 1.0, None, {"b": 2}, [None])
    assert type(typed(Sample, RIGHT).size) is float


@pytest.mark.parametrize(
    "change",
    [{"name": 1}, {"name": "\ud800"}, {"size": True}, {"size": "1"}, {"size": None}, {"count": 1.0},
     {"count": False}, {"more": []}, {"more": {"b": "2"}}, {"more": {"b\udfff": 2}}, {"name": ["a"] * 10**6},
     {"more": {"b" * 10**6: "2"}}],
    ids=lambda change: repr(change)[:30],
)  # fmt: skip
def test_the_wrong_field_is_named_in_a_short_message(change):
    (name,) = change
    with expect_error(FileRefused, name) as info:
        typed(Sample, {**RIGHT, **change})
    assert len(str(info.value)) < 400
