"""Who gets an answer, and the headers that every answer has."""

import pytest
from galip_runtime import FileRefused
from galip_runtime.serve.app import create_app
from galip_runtime.serve.settings import ServeSettings
from serve_answers import GENERATIONS, error_of
from starlette.testclient import TestClient

KEYS = ("first-key-0123456789", "second-key-0123456789")
PRIVATE = [("GET", "/v1/models"), ("GET", "/v1/picture?prompt=a&seed=1"), ("GET", "/metrics")]
PRIVATE += [("POST", GENERATIONS), ("POST", "/v1/interpolations"), ("GET", "/nothing"), ("PUT", "/v1/models")]


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("\n".join(KEYS))
    return path


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong-key-0123456789", f"Basic {KEYS[0]}", KEYS[0]]
)
def test_without_a_key_nothing_is_told(start, key_file, method, path, header):
    client = start(api_key_file=key_file)
    headers = {} if header is None else {"Authorization": header}
    response = client.request(
        method, path, headers=headers, json={"prompt": "a"} if method == "POST" else None
    )
    error = error_of(response, 401, "invalid_api_key")
    assert error["type"] == "authentication_error"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not any(key in response.text for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_any_of_the_keys_opens_the_service(start, key_file, key):
    client = start(api_key_file=key_file)
    headers = {"Authorization": f"bearer {key}"}
    assert client.post(GENERATIONS, json={"prompt": "a"}, headers=headers).status_code == 200
    picture = client.get("/v1/picture?prompt=a&seed=1", headers=headers)
    assert picture.headers["Cache-Control"].startswith("private, ")  # no shared cache may hand it on


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"]
)
def test_health_and_documentation_need_no_key(start, key_file, path):
    assert start(api_key_file=key_file).get(path).status_code == 200


@pytest.mark.parametrize("prefix", ["/docs", "/docs/files", "/galip"])
def test_keys_behind_a_prefix(model, key_file, prefix):
    """As of `uvicorn --root-path` or an app that another one mounts."""
    app = create_app(ServeSettings(api_key_file=key_file), model)
    with TestClient(app, f"http://localhost{prefix}", root_path=prefix) as client:
        for path in ("/v1/models", "/v1/picture?prompt=a&seed=1", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {KEYS[0]}"}).status_code == 200
        for path in ("/healthz", "/docs", "/docs/files/swagger-ui.css", "/"):
            assert client.get(path).status_code == 200


def test_keys_are_read_again(start, key_file):
    client = start(api_key_file=key_file)
    key_file.write_text("another-key-0123456789\n")
    assert client.app.state.keys.reload()
    statuses = [
        client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code
        for key in (KEYS[0], "another-key-0123456789")
    ]
    assert statuses == [401, 200]


def test_a_missing_file_of_keys_is_an_error_at_once(model, tmp_path):
    with pytest.raises(FileRefused, match="keys"):
        create_app(ServeSettings(api_key_file=tmp_path / "keys"), model)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:80", "app.localhost", "127.8.8.8:1"])
def test_this_machines_own_names_are_answered(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a:b:c"]
)
def test_a_name_pointed_at_this_machine_is_refused(client, host):
    response = client.post(GENERATIONS, json={"prompt": "a"}, headers={"Host": host})
    error_of(response, 403, "unknown_host")


def test_with_a_key_every_name_is_answered(start, key_file):
    headers = {"Host": "pictures.example", "Authorization": f"Bearer {KEYS[0]}"}
    assert start(api_key_file=key_file).get("/v1/models", headers=headers).status_code == 200
    assert start(insecure=True).get("/v1/models", headers={"Host": "pictures.example"}).status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),  # an <img> of a page somewhere
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),  # a link to the picture
        ("same-site", "no-cors", 200),  # a page of another port of localhost
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_pages_of_other_sites_have_nothing_drawn(client, start, site, mode, status):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    picture = "/v1/picture?prompt=a&seed=1"
    assert client.get(picture, headers=headers).status_code == status
    for allowing in (start(cors=("https://example.org",)), start(insecure=True)):
        assert allowing.get(picture, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/models", "/v1/picture?prompt=a&seed=1", "/nothing", "/docs", "/v1/picture"]
)
def test_headers_of_every_answer(client, path):
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-site"
    assert headers["X-Request-Id"].startswith("req_")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("a" * 65, False)])
def test_a_proxys_request_id_is_kept_if_it_is_plain(client, given, kept):
    answered = client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert (answered == given) == kept


def test_other_origins_need_to_be_allowed(start, client):
    origin = "https://example.org"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "content-type,authorization"
    error_of(client.options(GENERATIONS, headers=asked), 405)
    allowing = start(cors=(origin,))
    preflight = allowing.options(GENERATIONS, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    answer = allowing.get("/v1/models", headers={"Origin": origin})
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    other = allowing.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_preflight_needs_no_key(start, key_file):
    client = start(api_key_file=key_file, cors=("https://example.org",))
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    assert client.options(GENERATIONS, headers=asked).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", GENERATIONS, "POST"),
        ("DELETE", "/v1/picture", "GET, HEAD"),
        ("POST", "/v1/models", "GET"),
        ("TRACE", "/v1/interpolations", "POST"),
        ("PUT", "/healthz", "GET"),
        ("OPTIONS", "/metrics", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/docs/files/swagger-ui.css", "GET, HEAD"),
    ],
)
def test_another_method_is_told_the_right_one(client, method, path, allowed):
    response = client.request(method, path)
    assert allowed in error_of(response, 405, "method_not_allowed")["message"]
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/", "/v1/models/", "/docs/files/none", "/docs/files/../app.py"]
)
def test_what_is_not_there(client, path):
    error_of(client.get(path), 404, "not_found")
