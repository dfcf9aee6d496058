"""What the service serves at /: which files, with which headers, and nothing else."""

import asyncio
import json
import os

import pytest
from galip_runtime.errors import UsageError
from galip_runtime.serve.app import create_app
from galip_runtime.serve.page import SMALL_PAGE, page_routes
from galip_runtime.serve.settings import ServeSettings
from starlette.applications import Starlette
from starlette.testclient import TestClient
from stub_bundle import make_stub_bundle


@pytest.fixture
def page(tmp_path):
    """A built page: a few files, and some that are none of it."""
    folder = tmp_path / "page"
    (folder / "onnxruntime").mkdir(parents=True)
    files = {
        "index.html": "<!doctype html>the page",
        "page.js": "the script",
        "service.json": '{"draws": "tab"}',
        "onnxruntime/ort.mjs": "a module",
        "onnxruntime/ort.wasm": "wasm",
        ".env": "secret",
        "odd {name}.txt": "odd",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "bundle").mkdir()
    (folder / "bundle" / "manifest.json").write_text("of another bundle")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "linked").symlink_to(tmp_path)
    return folder


def visitor(bundle, **settings):
    return TestClient(Starlette(routes=page_routes(ServeSettings(**settings), bundle)))


def test_the_built_page_and_the_bundle(page, bundle):
    (bundle / "notes.txt").write_text("secret")
    client = visitor(bundle, page=page)
    assert client.get("/").text == "<!doctype html>the page"
    assert client.get("/onnxruntime/ort.mjs").text == "a module"
    for name in ("manifest.json", "generator.onnx", "vocabulary.gz"):
        assert client.get(f"/bundle/{name}").content == (bundle / name).read_bytes()
    assert client.get("/service.json").json() == {
        "draws": "service",
        "key": False,
        "source": json.loads((bundle / "manifest.json").read_text())["source"]["sha256"],
        "tab": True,
        "steps": 64,
    }


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        "link.txt",
        "linked/outside.txt",
        "bundle/notes.txt",
        "bundle/",
        "bundle",
        "onnxruntime",
        "%2e%2e/outside.txt",
        "..%2foutside.txt",
        "bundle/..%2f..%2foutside.txt",
        "bundle/%2e%2e/index.html",
        "onnxruntime/%2e%2e/%2e%2e/outside.txt",
        "odd%20{name}.txt",
        "nothing",
        "%00",
    ],
)
def test_nothing_else(page, bundle, path):
    (bundle / "notes.txt").write_text("secret")
    assert visitor(bundle, page=page).get(f"/{path}").status_code == 404


def test_types_and_headers(page, bundle):
    client = visitor(bundle, page=page)
    types = {
        "": "text/html; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
        "onnxruntime/ort.mjs": "text/javascript; charset=utf-8",
        "onnxruntime/ort.wasm": "application/wasm",
        "bundle/manifest.json": "application/json",
        "bundle/generator.onnx": "application/octet-stream",
    }
    for path, kind in types.items():
        answer = client.get(f"/{path}")
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-cache"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
        assert "unsafe-inline" not in policy
        assert client.head(f"/{path}").headers["Content-Length"] == answer.headers["Content-Length"]
    assert client.post("/").status_code == 405


def test_what_is_unchanged_is_not_sent_again(page, bundle):
    client = visitor(bundle, page=page)
    tag = client.get("/page.js").headers["ETag"]
    again = client.get("/page.js", headers={"If-None-Match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["ETag"] == tag
    (page / "page.js").write_text("a longer script")
    assert client.get("/page.js", headers={"If-None-Match": tag}).text == "a longer script"


def test_a_file_that_went_away(page, bundle):
    client = visitor(bundle, page=page)
    os.remove(page / "page.js")
    assert client.get("/page.js").status_code == 404


def test_with_keys_the_bundle_is_not_handed_out(page, bundle, tmp_path):
    client = visitor(bundle, page=page, api_key_file=tmp_path / "keys")
    assert client.get("/bundle/manifest.json").status_code == 404
    config = client.get("/service.json").json()
    assert config["key"]
    assert not config["tab"]


def test_what_browsers_cannot_compute_is_not_for_the_tab(page, tmp_path):
    bundle = make_stub_bundle(tmp_path / "int8", precisions=("int8",))
    assert not visitor(bundle, page=page).get("/service.json").json()["tab"]


def test_a_model_without_a_bundle(page):
    client = visitor(None, page=page)
    assert client.get("/bundle/manifest.json").status_code == 404
    assert client.get("/service.json").json()["source"] == ""


def test_the_small_page_loads_nothing_from_elsewhere(bundle):
    client = visitor(bundle, queue=20)
    html = client.get("/").text
    assert "<title>galip</title>" in html
    assert "style=" not in html  # the policy forbids it
    for name in ("page.css", "page.js", "icon.svg"):
        assert f'"{name}"' in html
        assert client.get(f"/{name}").status_code == 200
    for file in SMALL_PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http:" not in text
        assert "https:" not in text
    assert client.get("/bundle/manifest.json").status_code == 404
    assert client.get("/service.json").json() | {"source": ""} == {
        "draws": "service",
        "key": False,
        "source": "",
        "tab": False,
        "steps": 20,
    }


def test_a_folder_that_is_no_page(tmp_path, bundle):
    with pytest.raises(UsageError, match=r"no index\.html.*make web-page"):
        page_routes(ServeSettings(page=tmp_path), bundle)


@pytest.fixture
def served(model, page, tmp_path):
    """A function that makes a visitor of the whole app."""
    keys = tmp_path / "keys"
    keys.write_text("a-key-for-the-tests")
    keys.chmod(0o600)

    def make(locked=False, **settings):
        settings = ServeSettings(page=page, api_key_file=keys if locked else None, **settings)
        return TestClient(create_app(settings, model), base_url="http://localhost")

    return make


def test_the_app_serves_the_page_beside_its_routes(served, shared_bundle):
    with served() as client:
        assert client.get("/").text == "<!doctype html>the page"
        assert client.get("/").headers["Cache-Control"] == "no-cache"
        assert client.get("/bundle/manifest.json").content == (shared_bundle / "manifest.json").read_bytes()
        assert client.get("/v1/images/generations").status_code == 405
        assert client.get("/nothing").json()["error"]["code"] == "not_found"
        assert client.get("/docs").status_code == 200


def test_with_keys_the_page_is_open_and_the_bundle_is_not(served, page):
    (page / "v1").mkdir()
    (page / "v1" / "models").write_text("a file of the page that would take the place of a route")
    with served(locked=True) as client:
        for path in ("/", "/page.js", "/service.json"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/bundle/manifest.json").status_code == 401
        headers = {"Authorization": "Bearer a-key-for-the-tests"}
        assert client.get("/bundle/manifest.json", headers=headers).status_code == 404


def test_a_slow_visitor_gets_the_whole_file(served, page):
    """The deadline of pictures is none of a large file's."""
    (page / "onnxruntime" / "ort.wasm").write_bytes(bytes(10**6))
    app, got = served(timeout=0.05).app, []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        await asyncio.sleep(0.02)
        got.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/onnxruntime/ort.wasm",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(app(scope, receive, send))
    assert sum(map(len, got)) == 10**6
