"""The service under load and in trouble: batches, full queues, lost clients, broken models, the end."""

import asyncio
import json
import logging
import threading

import galip_runtime
import numpy as np
import pytest
import serve_process
from galip_runtime import ProviderUnavailable
from galip_runtime.serve.app import create_app
from galip_runtime.serve.settings import ServeSettings
from galip_runtime.text_to_image import TextToImage
from prometheus_client.parser import text_string_to_metric_families
from serve_answers import GENERATIONS, error_of, pictures_of, pixels
from stub_bundle import make_stub_bundle

SECONDS = 60  # a limit for what takes milliseconds


class GatedModel:
    """A stub model whose pictures wait until `open()`, and whose next ones fail with `error`."""

    def __init__(self, bundle):
        self.model = galip_runtime.load(bundle, device="cpu", threads=1)
        self.gate, self.begun, self.error, self.drawn = threading.Event(), threading.Event(), None, 0
        decode = self.model.decode_pictures

        def gated(noise, sentence):
            self.begun.set()
            assert self.gate.wait(SECONDS)
            if self.error is not None:
                raise self.error
            self.drawn += len(noise)
            return decode(noise, sentence)

        self.model.decode_pictures = gated


@pytest.fixture
def gated(shared_bundle):
    gated = GatedModel(shared_bundle)
    yield gated
    gated.gate.set()


class Call:
    """A request made to the app itself, in the running event loop; `leave()` closes the connection."""

    def __init__(self, app, method, target, body=None):
        self.body = b"" if body is None else json.dumps(body).encode()
        self.gone, self.messages, self.has_body = asyncio.Event(), [], True
        path, _, query = target.partition("?")
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
        scope |= {"scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
        scope |= {
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "root_path": "",
        }
        self.task = asyncio.ensure_future(app(scope, self.receive, self.send))

    async def receive(self):
        if self.has_body:
            self.has_body = False
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    def leave(self):
        self.gone.set()

    async def status(self):
        await asyncio.wait_for(asyncio.shield(self.task), SECONDS)
        return self.messages[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def content(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def error(self):
        return json.loads(self.content)["error"]


def running(model, work, **settings):
    """Run `await work(app)` while the app runs."""
    app = create_app(ServeSettings(**settings), model)

    async def run():
        async with app.router.lifespan_context(app):
            return await work(app)

    return asyncio.run(run())


async def until(condition):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


def metrics_of(app):
    """All metrics by name and labels."""
    families = text_string_to_metric_families(app.state.service.metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_of_many_callers_are_drawn_in_batches_and_do_not_mix(gated, model):
    async def work(app):
        first = Call(app, "GET", "/v1/picture?prompt=first&seed=0")
        await until(gated.begun.is_set)
        calls = [Call(app, "GET", f"/v1/picture?prompt=number%20{n}&seed={n}") for n in range(16)]
        await until(lambda: app.state.service.batcher.length == 16)
        assert metrics_of(app)[("galip_queue_length",)] == 16
        gated.gate.set()
        assert [await call.status() for call in (first, *calls)] == [200] * 17
        return [call.content for call in calls], metrics_of(app)

    files, metrics = running(gated.model, work, max_batch=8)
    for n, file in enumerate(files):
        assert (pixels(file) == model.generate(f"number {n}", seeds=[n])[0]).all()
    assert metrics[("galip_batch_size_count",)] == 3  # one alone, then two full ones
    assert metrics[("galip_batch_size_sum",)] == metrics[("galip_pictures_total",)] == 17
    assert metrics[("galip_queue_length",)] == 0
    for phase, count in {"queue": 17, "encode": 3, "decode": 3, "image_file": 17, "total": 17}.items():
        assert metrics["galip_request_seconds_count", phase] == count
    assert metrics[("galip_requests_total", "/v1/picture", "200")] == 17


def test_beyond_the_queue_callers_are_told_to_come_again(gated):
    async def work(app):
        first = Call(app, "GET", "/v1/picture?prompt=a&seed=0")
        await until(gated.begun.is_set)
        waiting = [Call(app, "POST", GENERATIONS, {"prompt": "a", "n": 2}) for _ in range(2)]
        await until(lambda: app.state.service.batcher.length == 4)
        refused = [Call(app, "POST", GENERATIONS, {"prompt": "a"}) for _ in range(50)]
        for call in refused:
            assert await call.status() == 429
            assert int(call.headers["retry-after"]) >= 1
            assert (call.error["type"], call.error["code"]) == ("rate_limit_error", "queue_full")
            assert app.state.service.batcher.length == 4
        gated.gate.set()
        assert [await call.status() for call in (first, *waiting)] == [200] * 3
        return metrics_of(app)

    metrics = running(gated.model, work, queue=4)
    assert metrics[("galip_rejected_total", "queue_full")] == 50
    assert metrics[("galip_pictures_total",)] == 5


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_has_gone_leaves_the_queue(gated, method):
    async def work(app):
        first = Call(app, "GET", "/v1/picture?prompt=a&seed=0")
        await until(gated.begun.is_set)
        if method == "GET":
            calls = [Call(app, "GET", f"/v1/picture?prompt=b&seed={seed}") for seed in range(3)]
        else:
            calls = [Call(app, "POST", GENERATIONS, {"prompt": "b"}) for _ in range(3)]
        await until(lambda: app.state.service.batcher.length == 3)
        calls[1].leave()
        await until(lambda: app.state.service.batcher.length == 2)
        await asyncio.wait_for(calls[1].task, SECONDS)
        gated.gate.set()
        assert [await call.status() for call in (first, calls[0], calls[2])] == [200] * 3
        return metrics_of(app)

    metrics = running(gated.model, work)
    assert gated.drawn == 3
    assert metrics[("galip_rejected_total", "client_gone")] == 1


def test_a_deadline_ends_a_request_and_takes_it_out_of_the_queue(gated):
    async def work(app):
        first = Call(app, "GET", "/v1/picture?prompt=a&seed=0")
        await until(gated.begun.is_set)
        second = Call(app, "POST", "/v1/interpolations", {"prompts": ["a", "b"]})
        for call in (first, second):
            assert await call.status() == 504
            assert call.error["code"] == "deadline"
        assert app.state.service.batcher.length == 0
        gated.gate.set()
        return metrics_of(app)

    metrics = running(gated.model, work, timeout=0.3)
    assert metrics[("galip_rejected_total", "deadline")] == 2


def test_a_body_that_does_not_come_ends_at_the_deadline(model):
    async def work(app):
        call = Call(app, "POST", GENERATIONS, {"prompt": "a"})
        call.has_body = False
        return await call.status()

    assert running(model, work, timeout=0.1) == 504


def test_numbers_that_are_not_finite_fail_one_request_with_an_id_that_the_log_has(start, tmp_path, caplog):
    broken = galip_runtime.load(make_stub_bundle(tmp_path / "bundle", nan=True), device="cpu", threads=1)
    client = start(broken)
    response = client.post(GENERATIONS, json={"prompt": "a secret"})
    error = error_of(response, 500, "internal_error")
    assert error["type"] == "server_error"
    assert error["id"] == response.headers["X-Request-Id"]
    assert error["id"] in error["message"]
    assert "Traceback" not in response.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.request_id == error["id"]
    assert "secret" not in record.getMessage()
    assert "galip_not_finite_total 1.0" in client.get("/metrics").text
    assert client.get("/readyz").status_code == 200


def test_a_failing_model_works_again(start, gated):
    client = start(gated.model)
    gated.gate.set()
    for error in (RuntimeError("out of memory at 0x7f"), MemoryError(), galip_runtime.GalipError("odd")):
        gated.error = error
        response = client.post(GENERATIONS, json={"prompt": "a"})
        message = error_of(response, 500, "internal_error")["message"]
        assert "0x7f" not in message
        gated.error = None
        assert client.post(GENERATIONS, json={"prompt": "a"}).status_code == 200


def test_a_lost_device_is_not_ready(start, gated):
    client = start(gated.model)
    gated.gate.set()
    gated.error = ProviderUnavailable("the GPU has fallen off the bus")
    error_of(client.post(GENERATIONS, json={"prompt": "a"}), 500)
    response = client.get("/readyz")
    assert "device" in error_of(response, 503, "not_ready")["message"]
    assert int(response.headers["Retry-After"]) >= 1
    assert client.get("/healthz").status_code == 200
    gated.error = None
    client.post(GENERATIONS, json={"prompt": "a"})
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_device_that_has_recovered_is_found_without_a_caller(start, gated, caplog):
    """A load balancer sends no request to a service that is not ready."""
    client = start(gated.model)
    gated.gate.set()
    gated.error = ProviderUnavailable("the GPU has fallen off the bus")
    error_of(client.post(GENERATIONS, json={"prompt": "a"}), 500)
    serve_process.until(
        lambda: client.get("/readyz").status_code == 503 and "the device still fails" in caplog.text
    )
    gated.error = None
    serve_process.until(lambda: client.get("/readyz").status_code == 200)
    assert gated.drawn == 1


def test_an_unexpected_exception_is_answered_without_its_text(start, monkeypatch, caplog):
    client = start()
    monkeypatch.setattr(client.app.state.service, "check_model", lambda name: 1 / 0)
    response = client.post(GENERATIONS, json={"prompt": "a"})
    error = error_of(response, 500, "internal_error")
    assert "division" not in response.text
    assert any(getattr(record, "request_id", None) == error["id"] for record in caplog.records)
    monkeypatch.undo()
    assert client.post(GENERATIONS, json={"prompt": "a"}).status_code == 200


def test_while_it_ends_it_is_not_ready_and_serves_what_still_comes(start):
    client = start()
    client.app.state.service.draining = True
    assert "shutting down" in error_of(client.get("/readyz"), 503, "not_ready")["message"]
    response = client.post(GENERATIONS, json={"prompt": "a"})
    assert response.headers["Connection"] == "close"
    assert len(pictures_of(response)) == 1
    client.app.state.service.batcher.close()
    response = client.post(GENERATIONS, json={"prompt": "a"})
    error_of(response, 503, "not_ready")
    assert int(response.headers["Retry-After"]) >= 1


def test_the_end_waits_for_what_was_accepted(gated):
    async def work(app):
        call = Call(app, "POST", GENERATIONS, {"prompt": "a", "n": 4})
        await until(gated.begun.is_set)
        asyncio.get_running_loop().call_later(0.05, gated.gate.set)
        return call

    async def run():
        app = create_app(ServeSettings(), gated.model)
        async with app.router.lifespan_context(app):
            call = await work(app)
        return await call.status()

    assert asyncio.run(run()) == 200


def test_after_the_grace_requests_are_given_up(gated):
    async def run():
        app = create_app(ServeSettings(grace=0.05), gated.model)
        async with app.router.lifespan_context(app):
            call = Call(app, "POST", GENERATIONS, {"prompt": "a"})
            await until(gated.begun.is_set)
        status = await call.status()
        gated.gate.set()
        return status

    assert asyncio.run(run()) == 503


def test_before_the_start_the_service_is_not_ready(model):
    async def run():
        app = create_app(ServeSettings(), model)
        paths = ("/healthz", "/readyz", "/v1/models", "/v1/picture?prompt=a&seed=1", "/openapi.json")
        got = [await Call(app, "GET", path).status() for path in paths]
        posted = await Call(app, "POST", GENERATIONS, {"prompt": "a"}).status()
        return [*got, posted, await Call(app, "POST", "/v1/interpolations", {"prompts": ["a", "b"]}).status()]

    assert asyncio.run(run()) == [200, 503, 503, 503, 200, 503, 503]


def test_a_bundle_is_loaded_by_the_app_and_closed(shared_bundle):
    async def work(app):
        assert await Call(app, "GET", "/readyz").status() == 200
        return app.state.service

    service = running(None, work, bundle=shared_bundle, device="cpu", precision="fp32", threads=1)
    assert service.info["requested"] == {"device": "cpu", "precision": "fp32", "threads": 1}
    assert "closed" in repr(service.model)


def test_a_given_model_stays_open(model):
    async def work(app):
        return await Call(app, "GET", "/v1/picture?prompt=a&seed=1").status()

    assert running(model, work) == 200
    assert isinstance(model.generate("a", seeds=[1]), np.ndarray)


def test_models(client, model):
    (card,) = client.get("/v1/models").json()["data"]
    assert card["id"] == f"galip-{model.digest[:12]}"
    assert (card["object"], card["size"], card["digest"]) == ("model", "8x8", model.digest)
    assert (card["device"], card["precision"]) == ("cpu", "fp32")
    assert (card["max_images"], card["max_steps"]) == (10, 64)
    assert client.get("/v1/models/galip").json() == client.get(f"/v1/models/{card['id']}").json() == card
    error_of(client.get("/v1/models/dall-e-3"), 404, "model_not_found")


def test_a_cut_prompt_leaves_nothing_behind(recwarn, start):
    """Its warning has the prompt: it would be in the log, and stay in the registry of warnings."""
    pictures_of(start().post(GENERATIONS, json={"prompt": "word " * 100}))
    assert not [warning for warning in recwarn if issubclass(warning.category, galip_runtime.PromptCut)]


def test_the_deadline_is_for_the_beginning_of_an_answer(model):
    """A long file may take as long as the connection takes."""

    async def work(app):
        async def slow_file(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(0.2)
            await send({"type": "http.response.body", "body": b"whole"})

        app.mount("/slow", slow_file)
        call = Call(app, "GET", "/slow/file")
        return await call.status(), call.content

    assert running(model, work, timeout=0.1) == (200, b"whole")


def test_a_timeout_of_the_system_is_no_deadline(start, monkeypatch):
    def broken(*_):
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(TextToImage, "decode_pictures", broken)
    assert error_of(start().get("/v1/picture?prompt=a&seed=1"), 500, "internal_error")["id"]
