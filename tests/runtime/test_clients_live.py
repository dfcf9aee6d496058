"""A real service and its clients: OpenAI's own for Python, and galip's."""

import asyncio
import base64
import io
import re
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from galip_runtime.client import AsyncClient, Client
from galip_runtime.errors import GalipError, ServiceUnavailable, UsageError
from serve_process import Process
from stub_bundle import make_stub_bundle

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

KEY = "a-key-for-the-tests"


@pytest.fixture(scope="module")
def service(shared_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    keys = folder / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    with Process(shared_bundle, "--api-key-file", keys, "--queue", 20, folder=folder) as process:
        yield process


@pytest.fixture(scope="module")
def url(service):
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The address of a service whose model gives NaN."""
    folder = tmp_path_factory.mktemp("broken")
    with Process(make_stub_bundle(folder / "bundle", nan=True), folder=folder) as process:
        yield f"http://127.0.0.1:{process.port}", process


@pytest.fixture(params=["sync", "async"])
def client(request, url):
    """A function that makes OpenAI's client: its `generate` and `models` return results in both kinds."""

    def make(base_url=f"{url}/v1", api_key=KEY, max_retries=0):
        kind = openai.OpenAI if request.param == "sync" else openai.AsyncOpenAI
        return _Both(kind(base_url=base_url, api_key=api_key, max_retries=max_retries))

    return make


class _Both:
    def __init__(self, client):
        self.client = client

    def generate(self, **options):
        result = self.client.images.generate(**options)
        return asyncio.run(self._awaited(result)) if asyncio.iscoroutine(result) else result

    def models(self):
        result = self.client.models.list()
        if isinstance(self.client, openai.OpenAI):
            return list(result)

        async def collected():
            return [model async for model in result]

        return asyncio.run(collected())

    async def _awaited(self, result):
        try:
            return await result
        finally:
            await self.client.close()


def pixels(data):
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


def test_openai_pictures_in_base64(client, model):
    answer = client().generate(prompt="a red apple", n=3, extra_body={"seed": 7})
    pictures = np.stack([pixels(base64.b64decode(entry.b64_json)) for entry in answer.data])
    assert np.array_equal(pictures, model.generate("a red apple", range(7, 10)))
    assert (answer.size, answer.output_format) == ("8x8", "png")
    assert [entry.seed for entry in answer.data] == [7, 8, 9]


def test_openai_seeds_truncation_and_formats(client, model):
    options = {"model": "galip", "size": "auto", "quality": "auto", "user": "somebody"}
    seeds = [2**64 - 1, 3]
    answer = client().generate(prompt="a", extra_body={"seeds": seeds, "truncation": 0.5}, **options)
    pictures = np.stack([pixels(base64.b64decode(entry.b64_json)) for entry in answer.data])
    assert np.array_equal(pictures, model.generate("a", seeds, truncation=0.5))
    answer = client().generate(prompt="a", output_format="webp", output_compression=80)
    assert PIL.Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).format == "WEBP"


def test_openai_addresses(client, model, url):
    wish = {"prompt": "a & b, ü 🦊", "response_format": "url", "extra_body": {"seed": 5}}
    (picture,) = client().generate(**wish).data
    assert picture.url.startswith(url)
    answer = httpx.get(picture.url, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.content == model.png("a & b, ü 🦊", 5)


def test_openai_models(client):
    (model,) = client().models()
    assert model.id.startswith("galip-")
    assert model.owned_by == "galip"


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"n": 1000}, openai.BadRequestError, "invalid_value"),
        ({"size": "9x9"}, openai.BadRequestError, "invalid_value"),
        ({"extra_body": {"seed": -1}}, openai.BadRequestError, "invalid_value"),
        ({"extra_body": {"nothing": 1}}, openai.BadRequestError, "unknown_parameter"),
        ({"model": "dall-e-3"}, openai.NotFoundError, "model_not_found"),
    ],
)
def test_openai_errors(client, options, kind, code):
    with pytest.raises(kind) as caught:
        client().generate(prompt="a", **options)
    assert caught.value.code == code
    assert caught.value.request_id


def test_openai_wrong_key(client):
    with pytest.raises(openai.AuthenticationError) as caught:
        client(api_key="another").generate(prompt="a")
    assert caught.value.code == "invalid_api_key"


def test_openai_model_that_fails(client, broken):
    address, process = broken
    with pytest.raises(openai.InternalServerError) as caught:
        client(f"{address}/v1").generate(prompt="a")
    assert caught.value.body["id"] == caught.value.request_id
    assert process.wait_for(caught.value.request_id)


def test_openai_full_queue(url):
    async def flood():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            calls = [client.images.generate(prompt="a", n=10) for _ in range(40)]
            return await asyncio.gather(*calls, return_exceptions=True)

    ends = asyncio.run(flood())
    refused = [end for end in ends if isinstance(end, Exception)]
    assert 0 < len(refused) < len(ends)
    for error in refused:
        assert isinstance(error, openai.RateLimitError)
        assert error.code == "queue_full"
        assert int(error.response.headers["Retry-After"]) >= 1


def test_galips_client(url, model):
    with Client(url, KEY) as client:
        assert client.image_size() == (8, 8)
        pictures = client.generate(["a", "the red", "the red"], seeds=[1, 2, 2**64 - 1], truncation=0.5)
        assert np.array_equal(
            pictures, model.generate(["a", "the red", "the red"], [1, 2, 2**64 - 1], truncation=0.5)
        )
        assert client.png("a", 7) == model.png("a", 7)
        frames = client.interpolate(["a", "the red"], 3, seeds=[1, 2], square=True)
        assert np.array_equal(frames, model.interpolate(["a", "the red"], 3, seeds=[1, 2], square=True))
        with pytest.raises(UsageError, match="at most"):
            client.interpolate(["a", "the red"], 100, seed=1)
    with Client(url, "another") as client, pytest.raises(UsageError, match=r"(?s)unknown.*api_key="):
        client.generate("a", seed=1)
    with Client(url + "/elsewhere", KEY) as client, pytest.raises(UsageError, match="there is no /elsewhere"):
        client.info()


def test_galips_clients_wait_for_a_full_queue(url, model):
    """Together they ask for far more pictures than the queue holds."""

    async def together():
        async with AsyncClient(url, KEY, timeout=120, parallel=8) as client:
            return await asyncio.gather(*[client.generate("a", range(40)) for _ in range(4)])

    expected = model.generate("a", range(40))
    assert all(np.array_equal(pictures, expected) for pictures in asyncio.run(together()))


def test_galips_client_and_a_model_that_fails(broken):
    with Client(broken[0]) as client, pytest.raises(GalipError, match="under the id req_") as caught:
        client.generate("a", seed=1)
    assert not isinstance(caught.value, UsageError | ServiceUnavailable)


def examples():
    """The Python examples of the documentation that have a client."""
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "http://" in block]


@pytest.mark.parametrize("example", examples(), ids=["Client", "AsyncClient", "openai"])
def test_the_examples_of_the_documentation_run(example, url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = example.replace("http://127.0.0.1:8000", url)
    code = code.replace("api_key=None", f"api_key={KEY!r}").replace('api_key="none"', f"api_key={KEY!r}")
    code = code.replace(f'AsyncClient("{url}")', f'AsyncClient("{url}", {KEY!r})')
    exec(compile(code, "docs/serve.md", "exec"), {})
