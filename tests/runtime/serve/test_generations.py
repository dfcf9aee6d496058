"""`POST /v1/images/generations`: what it draws, and what it refuses and how."""

import base64

import numpy as np
import pytest
from galip_runtime.noise import MAX_SEED
from serve_answers import GENERATIONS, error_of, pictures_of, pixels


def test_the_pictures_are_those_of_the_model(client, model):
    response = client.post(GENERATIONS, json={"prompt": "a red apple", "n": 3, "seed": 5})
    assert (pictures_of(response) == model.generate("a red apple", seeds=[5, 6, 7])).all()
    body = response.json()
    assert [entry["seed"] for entry in body["data"]] == [5, 6, 7]
    assert (body["output_format"], body["size"]) == ("png", "8x8")
    assert body["model"] == f"galip-{model.digest[:12]}"
    assert body["created"] > 1_700_000_000


def test_a_png_is_that_of_the_model_with_its_metadata(client, model):
    response = client.post(GENERATIONS, json={"prompt": "a dog", "seed": 3, "truncation": 0.5})
    file = base64.b64decode(response.json()["data"][0]["b64_json"])
    assert file == model.png("a dog", 3, truncation=0.5)


def test_seeds_may_be_integers_or_text_of_64_bits(client, model):
    seeds = [0, "7", MAX_SEED, str(MAX_SEED), 2**53]
    response = client.post(GENERATIONS, json={"prompt": "a dog", "seeds": seeds, "truncation": 1})
    expected = model.generate("a dog", seeds=[int(seed) for seed in seeds], truncation=1.0)
    assert (pictures_of(response) == expected).all()
    # readers with floats alone would round what is not text
    assert [entry["seed"] for entry in response.json()["data"]] == [
        0,
        7,
        str(MAX_SEED),
        str(MAX_SEED),
        str(2**53),
    ]


def test_after_the_largest_seed_comes_0(client):
    response = client.post(GENERATIONS, json={"prompt": "a", "n": 2, "seed": MAX_SEED})
    assert [entry["seed"] for entry in response.json()["data"]] == [str(MAX_SEED), 0]


def test_without_a_seed_each_answer_is_another(client):
    first, second = (client.post(GENERATIONS, json={"prompt": "a"}).json()["data"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_kinds_of_files(client, model, kind):
    body = {"prompt": "a", "seed": 1, "output_format": kind, "output_compression": 100}
    response = client.post(GENERATIONS, json=body)
    difference = pictures_of(response)[0].astype(int) - model.generate("a", seeds=[1])[0]
    assert response.json()["output_format"] == kind
    assert np.abs(difference).mean() < (1 if kind == "png" else 60)  # colours of neighbours are mixed


def test_a_smaller_file_where_quality_is_low(client):
    sizes = [
        len(
            client.post(
                GENERATIONS,
                json={"prompt": "a", "seed": 1, "output_format": "jpeg", "output_compression": quality},
            ).content
        )
        for quality in (0, 100)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", [None, "png", "jpeg", "webp"])
def test_an_address_leads_to_the_same_file(client, kind):
    body = {"prompt": "a &=?#/ ü", "seed": MAX_SEED, "truncation": 0.7}
    body |= {"output_format": kind, "output_compression": 40}
    (file,) = client.post(GENERATIONS, json=body).json()["data"]
    (entry,) = client.post(GENERATIONS, json={**body, "response_format": "url"}).json()["data"]
    assert entry["url"].startswith("http://localhost/v1/picture?")
    assert set(entry) == {"url", "seed"}
    assert client.get(entry["url"]).content == base64.b64decode(file["b64_json"])


def test_what_has_one_value_alone_is_taken_and_null_is_left_out(client):
    body = {
        "prompt": "a",
        "quality": "standard",
        "style": "natural",
        "background": "auto",
        "moderation": "auto",
    }
    body |= {"size": "8x8", "model": "galip", "user": "somebody", "stream": False, "n": 1.0, "seed": None}
    assert client.post(GENERATIONS, json=body).status_code == 200
    assert client.post(GENERATIONS, json={"prompt": "a", "size": "auto", "n": None}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "names"),
    [
        ({"prompt": None}, "prompt", "string"),
        ({"prompt": 3}, "prompt", "string"),
        ({"prompt": "a" * 4001}, "prompt", "4000"),
        ({"n": 0}, "n", "1"),
        ({"n": 11}, "n", "at most 10"),
        ({"n": "1"}, "n", "integer"),
        ({"n": True}, "n", "integer"),
        ({"n": 1.5}, "n", "integer"),
        ({"size": "1024x1024"}, "size", "8x8"),
        ({"response_format": "file"}, "response_format", "b64_json"),
        ({"output_format": "tiff"}, "output_format", "png"),
        ({"output_compression": 101}, "output_compression", "100"),
        ({"seed": -1}, "seed", str(MAX_SEED)),
        ({"seed": MAX_SEED + 1}, "seed", str(MAX_SEED)),
        ({"seed": "07"}, "seed", str(MAX_SEED)),
        ({"seed": 0.5}, "seed", str(MAX_SEED)),
        ({"seeds": []}, "seeds", "1"),
        ({"seeds": [1] * 11}, "seeds", "at most 10"),
        ({"seeds": [1, "x"]}, "seeds[1]", str(MAX_SEED)),
        ({"seeds": [1], "seed": 1}, "seed", "seeds"),
        ({"seeds": [1], "n": 1}, "n", "seeds"),
        ({"truncation": 0}, "truncation", "0"),
        ({"truncation": 10**400}, "truncation", ""),
        ({"quality": "hd"}, "quality", "standard"),
        ({"stream": True}, "stream", "false"),
        ({"stream": 0}, "stream", "boolean"),
    ],
)
def test_a_wrong_parameter_is_named(client, change, param, names):
    response = client.post(GENERATIONS, json={"prompt": "a"} | change)
    error = error_of(response, 400, "invalid_value", param)
    assert error["type"] == "invalid_request_error"
    assert param.partition("[")[0] in error["message"]
    assert names in error["message"]


def test_an_unknown_or_missing_parameter_has_a_code_of_its_own(client):
    response = client.post(GENERATIONS, json={"prompt": "a", "steps": 3})
    assert "steps" in error_of(response, 400, "unknown_parameter", "steps")["message"]
    error_of(client.post(GENERATIONS, json={"n": 1}), 400, "missing_required_parameter", "prompt")
    error_of(client.post(f"{GENERATIONS}?n=1", json={"prompt": "a"}), 400, "unknown_parameter", "n")


def test_a_wrong_type_is_said_in_plain_words(client):
    error = error_of(client.post(GENERATIONS, json={"prompt": ["a red apple"]}), 400, param="prompt")
    assert error["message"] == "prompt must be a string"


def test_another_model_is_not_there(client, model):
    error = error_of(
        client.post(GENERATIONS, json={"prompt": "a", "model": "dall-e-3"}), 404, "model_not_found", "model"
    )
    assert f"galip-{model.digest[:12]}" in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"prompt": "a"}'.encode("utf-16"),
        b'{"prompt": "a", "n": NaN}',
        b'{"prompt": "a", "truncation": Infinity}',
        b'{"prompt": "a", "truncation": 1e999}',
        b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}",
        b'{"prompt": "a", "prompt": "b"}',
        rb'{"prompt": "\ud800"}',
        rb'{"prompt": "a", "\udfff": 1}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"{'prompt': 'a'}",
    ],
)
def test_what_is_not_json_is_refused(client, body):
    response = client.post(GENERATIONS, content=body, headers={"Content-Type": "application/json"})
    message = error_of(response, 400, "invalid_json")["message"]
    assert "sys." not in message  # Python's own advice


@pytest.mark.parametrize("body", [b"[1]", b"3", b'"prompt"', b"true", b"[]"])
def test_json_of_another_kind_is_refused(client, body):
    response = client.post(GENERATIONS, content=body, headers={"Content-Type": "application/json"})
    assert "JSON object" in error_of(response, 400)["message"]


@pytest.mark.parametrize("body", [b"", b"null"])
def test_no_body_is_refused(client, body):
    response = client.post(GENERATIONS, content=body, headers={"Content-Type": "application/json"})
    assert "the body" in error_of(response, 400)["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_content_type_is_refused(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    response = client.post(GENERATIONS, content=b'{"prompt": "a"}', headers=headers)
    assert "application/json" in error_of(response, 415, "unsupported_media_type")["message"]
    right = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post(GENERATIONS, content=b'{"prompt": "a"}', headers=right).status_code == 200


def test_a_large_body_is_refused_by_its_length_or_as_it_comes(start):
    client = start(max_body=2000)
    headers = {"Content-Type": "application/json"}
    inside, beyond = (b'{"prompt": "%s"}' % (b"a" * count) for count in (1900, 2000))
    assert client.post(GENERATIONS, content=inside, headers=headers).status_code == 200
    assert "2,000" in error_of(client.post(GENERATIONS, content=beyond, headers=headers), 413)["message"]
    parts = (beyond[index : index + 100] for index in range(0, len(beyond), 100))
    error_of(client.post(GENERATIONS, content=parts, headers=headers), 413, "too_large")


def test_a_request_makes_no_more_pictures_than_the_queue_holds(start):
    client = start(queue=2)
    error_of(client.post(GENERATIONS, json={"prompt": "a", "n": 3}), 400, "invalid_value", "n")
    assert client.post(GENERATIONS, json={"prompt": "a", "n": 2}).status_code == 200


def test_an_error_is_in_openais_format(client):
    response = client.post(GENERATIONS, json={"prompt": "a", "n": 11})
    assert response.json() == {
        "error": {
            "message": "n makes 11 pictures, and a request makes at most 10",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_value",
        }
    }


def test_pictures_of_a_sheet_do_not_mix(client, model):
    """Each picture of a request is the one of its seed, in the order of the seeds."""
    seeds = [9, 2, 9, 5]
    pictures = pictures_of(client.post(GENERATIONS, json={"prompt": "a", "seeds": seeds}))
    for seed, picture in zip(seeds, pictures, strict=True):
        assert (picture == pixels(model.png("a", seed))).all()
