"""Whatever is sent, the answer is a picture or a plain refusal, never a failure of the service."""

import json
import time
from urllib.parse import quote

import pytest
from galip_runtime.serve.problems import Problem
from galip_runtime.serve.strict import parse_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_answers import GENERATIONS

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "prompt",
    "n",
    "size",
    "model",
    "response_format",
    "output_format",
    "output_compression",
    "seed",
    "seeds",
]
NAMES += [
    "truncation",
    "user",
    "quality",
    "stream",
    "prompts",
    "steps",
    "square",
    "frame_seconds",
    "columns",
    "gap",
]
LIKELY = {
    "prompt": TEXTS,
    "prompts": st.lists(TEXTS, min_size=1, max_size=4),
    "n": st.integers(-1, 12),
    "steps": st.integers(0, 70),
    "seed": st.integers(-1, 2**64),
    "seeds": st.lists(st.integers(-1, 2**64) | st.integers(0, 2**64).map(str), max_size=5),
    "output_format": st.sampled_from(["png", "jpeg", "webp", "gif", "sheet"]),
    "truncation": st.floats(),
}
BODIES = st.fixed_dictionaries({}, optional={name: LIKELY.get(name, VALUES) | VALUES for name in NAMES})


def check(response):
    """Check that an answer is a picture, or an error in the format."""
    assert response.status_code in (200, 304, 307, 400, 404, 405, 413, 415), response.text
    if response.status_code >= 400:
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        assert len(error["message"]) < 1000
        assert "Traceback" not in error["message"]


@EXAMPLES
@given(body=BODIES | VALUES, path=st.sampled_from([GENERATIONS, "/v1/interpolations"]))
def test_json_of_any_kind(client, body, path):
    check(client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"}))


@EXAMPLES
@given(content=st.binary(max_size=200), path=st.sampled_from([GENERATIONS, "/v1/interpolations"]))
def test_bytes_of_any_kind(client, content, path):
    check(client.post(path, content=content, headers={"Content-Type": "application/json"}))


@EXAMPLES
@given(
    query=st.lists(
        st.tuples(
            st.sampled_from(["prompt", "seed", "truncation", "format", "compression"])
            | st.binary(max_size=4),
            st.binary(max_size=20) | st.integers(0, 2**64).map(str),
        ),
        max_size=5,
    )
)
def test_query_strings_of_any_kind(client, query):
    text = "&".join(f"{quote(name)}={quote(value)}" for name, value in query)
    check(client.get(f"/v1/picture?{text}"))


@EXAMPLES
@given(path=st.binary(max_size=30), method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS"]))
def test_paths_of_any_kind(client, path, method):
    response = client.request(method, f"/v1/models/{quote(path, safe='/')}")
    if method != "HEAD":
        check(response)


@pytest.mark.parametrize("depth", [10, 900, 1000, 1100, 5000])
def test_levels_of_brackets(client, depth):
    body = b'{"prompt": "a", "user": ' + b"[" * depth + b"]" * depth + b"}"
    check(client.post(GENERATIONS, content=body, headers={"Content-Type": "application/json"}))


def test_a_name_that_comes_twice_is_found_in_one_pass():
    """A body of the longest kind must not hold up everybody else."""
    names = ",".join(f'"{number:04x}":1' for number in range(60_000))
    began = time.monotonic()
    with pytest.raises(Problem, match="'ea5f' twice"):
        parse_json(f'{{{names},"ea5f":2}}'.encode())
    assert time.monotonic() - began < 20  # comparing each with each takes minutes
