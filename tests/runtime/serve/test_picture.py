"""`GET /v1/picture`: the file, and what lets caches keep it."""

from urllib.parse import parse_qs, urlsplit

import pytest
from galip_runtime.noise import MAX_SEED
from serve_answers import error_of, pixels

PICTURE = "/v1/picture"


def test_the_file_is_that_of_the_model(client, model):
    response = client.get(PICTURE, params={"prompt": "a red apple", "seed": "5", "truncation": "0.5"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/png"
    assert response.content == model.png("a red apple", 5, truncation=0.5)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(client, kind):
    response = client.get(PICTURE, params={"prompt": "a", "seed": str(MAX_SEED), "format": kind})
    assert response.headers["Content-Type"] == f"image/{kind}"
    assert pixels(response.content).shape == (8, 8, 3)


def test_a_picture_may_be_kept_for_ever(client):
    response = client.get(PICTURE, params={"prompt": "a", "seed": 1})
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["ETag"].startswith('"')


@pytest.mark.parametrize("condition", ["{}", "W/{}", '"other", {}', "*"])
def test_a_known_picture_is_not_drawn(start, condition):
    client = start()
    etag = client.head(PICTURE, params={"prompt": "a", "seed": 1}).headers["ETag"]
    response = client.get(
        PICTURE, params={"prompt": "a", "seed": 1}, headers={"If-None-Match": condition.format(etag)}
    )
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == etag
    assert "immutable" in response.headers["Cache-Control"]
    assert "galip_pictures_total 0.0" in client.get("/metrics").text


def test_an_etag_stands_for_the_whole_query(client):
    queries = [
        {"prompt": "a", "seed": 1},
        {"prompt": "b", "seed": 1},
        {"prompt": "a", "seed": 2},
        {"prompt": "a", "seed": 1, "truncation": 0.5},
        {"prompt": "a", "seed": 1, "format": "webp"},
        {"prompt": "a", "seed": 1, "format": "webp", "compression": 3},
    ]
    etags = [client.get(PICTURE, params=query).headers["ETag"] for query in queries]
    assert len(set(etags)) == len(etags)
    again = client.get(f"{PICTURE}?seed=1&truncation=5e-1&prompt=%61", headers={"If-None-Match": etags[3]})
    assert again.status_code == 304
    default = client.get(PICTURE, params={**queries[4], "compression": 95})
    assert default.headers["ETag"] == etags[4]


def test_the_same_query_has_the_same_etag_in_another_process_of_the_service(start):
    first, second = (start().head(PICTURE, params={"prompt": "a", "seed": 1}) for _ in range(2))
    assert first.headers["ETag"] == second.headers["ETag"]


def test_where_a_picture_may_depend_on_its_batch_the_etag_is_weak(start, monkeypatch):
    client = start()
    monkeypatch.setitem(client.app.state.service.info, "device", "cuda")
    response = client.get(PICTURE, params={"prompt": "a", "seed": 1})
    assert response.headers["ETag"].startswith('W/"')
    known = client.get(
        PICTURE, params={"prompt": "a", "seed": 1}, headers={"If-None-Match": response.headers["ETag"]}
    )
    assert known.status_code == 304


def test_head_tells_the_headers_and_draws_nothing(start):
    client = start()
    head = client.head(PICTURE, params={"prompt": "a", "seed": 1, "format": "webp"})
    assert "galip_pictures_total 0.0" in client.get("/metrics").text
    get = client.get(PICTURE, params={"prompt": "a", "seed": 1, "format": "webp"})
    assert head.status_code == 200
    for name in ("ETag", "Cache-Control", "Content-Type"):
        assert head.headers[name] == get.headers[name]
    error = client.head(PICTURE, params={"seed": 1})
    assert (error.status_code, error.content) == (400, b"")


def test_without_a_seed_the_answer_leads_to_a_random_one(client):
    query = {"prompt": "a &=#ü", "truncation": "0.5", "format": "webp", "compression": "7"}
    first, second = (client.get(PICTURE, params=query) for _ in range(2))
    assert first.status_code == 307
    assert first.headers["Cache-Control"] == "no-store"
    assert first.headers["Location"] != second.headers["Location"]
    led = {name: value for name, (value,) in parse_qs(urlsplit(first.headers["Location"]).query).items()}
    assert led.pop("seed").isdecimal()
    assert led == query
    assert client.get(first.headers["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("", "missing_required_parameter", "prompt"),
        ("seed=1", "missing_required_parameter", "prompt"),
        ("prompt=a&seed=1&seed=1", "invalid_value", "seed"),
        ("prompt=a&prompt=b", "invalid_value", "prompt"),
        ("prompt=a&size=8x8", "unknown_parameter", "size"),
        ("prompt=a&query=1", "unknown_parameter", "query"),
        ("prompt=a&seed=-1", "invalid_value", "seed"),
        ("prompt=a&seed=", "invalid_value", "seed"),
        ("prompt=a&seed=1.0", "invalid_value", "seed"),
        (f"prompt=a&seed={MAX_SEED + 1}", "invalid_value", "seed"),
        ("prompt=a&seed=1&truncation=nan", "invalid_value", "truncation"),
        ("prompt=a&seed=1&truncation=inf", "invalid_value", "truncation"),
        ("prompt=a&seed=1&truncation=-1", "invalid_value", "truncation"),
        ("prompt=a&seed=1&format=gif", "invalid_value", "format"),
        ("prompt=a&seed=1&compression=101", "invalid_value", "compression"),
        (f"prompt={'a' * 4001}&seed=1", "invalid_value", "prompt"),
        ("prompt=%ff&seed=1", "invalid_value", None),
        ("prompt=%ed%a0%80&seed=1", "invalid_value", None),
    ],
)
def test_a_wrong_query_is_refused(client, query, code, param):
    error_of(client.get(f"{PICTURE}?{query}"), 400, code, param)


def test_no_prompt_at_all_is_not_an_empty_one(client, model):
    assert client.get(f"{PICTURE}?prompt=&seed=1").content == model.png("", 1)
