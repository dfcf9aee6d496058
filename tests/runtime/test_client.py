"""The clients of the service, both of them, against a service without a network."""

import asyncio
import base64
import contextlib
import io
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_service import FakeService, error
from galip_runtime.client import AsyncClient, Client, answers, bodies
from galip_runtime.errors import DeadlineExceeded, GalipError, ServiceUnavailable, UsageError

URL = "http://service:8000"


class InThisThread:
    """`AsyncClient` with the methods of `Client`."""

    def __init__(self, *args, **options):
        self.client = AsyncClient(*args, **options)

    def __getattr__(self, name):
        value = getattr(self.client, name)
        return (lambda *args, **options: asyncio.run(value(*args, **options))) if callable(value) else value

    def __repr__(self):
        return repr(self.client)


@pytest.fixture
def service(model):
    return FakeService(model)


@pytest.fixture(params=[Client, InThisThread], ids=["Client", "AsyncClient"])
def kind(request):
    return request.param


@pytest.fixture
def client(kind, service):
    return kind(URL, "key", transport=service.transport())


@pytest.fixture
def no_waits(monkeypatch):
    """The seconds that a client would have waited."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    wait = threading.Event.wait
    monkeypatch.setattr(
        threading.Event,
        "wait",
        lambda event, timeout=None: wait(event) if timeout is None else waits.append(timeout),
    )
    return waits


def png(*shape, mode="RGB"):
    file = io.BytesIO()
    PIL.Image.new(mode, shape).save(file, "PNG")
    return file.getvalue()


def images(*files):
    return httpx.Response(200, json={"data": [{"b64_json": base64.b64encode(f).decode()} for f in files]})


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        ("a red apple", {"seed": 7}),
        (["a red apple"], {"seeds": [7, 2**64 - 1, 0, 1, 2, 3, 4]}),
        (["an apple", "the red", "the red", "a"], {"seeds": 5, "truncation": 0.5}),
        (["an apple", "the red", "the red"], {"seeds": np.array([1, 2, 3])}),
    ],
)
def test_pictures_are_the_models_to_the_bit(client, model, prompts, options):
    pictures = client.generate(prompts, **options)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, model.generate(prompts, **options))


def test_a_call_is_split_into_what_the_service_takes(client, service):
    client.generate(["a", "a", "a", "a", "b"], seeds=range(5))
    sent = sorted((body["prompt"], body["seeds"]) for body in service.sent)
    assert sent == [("a", [0, 1, 2]), ("a", [3]), ("b", [4])]
    assert all(request.headers["Authorization"] == "Bearer key" for request in service.requests)


def test_no_seed_is_a_random_one_for_each_prompt(client, service):
    client.generate(["a", "b"])
    first, second = (body["seeds"] for body in service.sent)
    assert len(first) == len(second) == 1


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        (["a", "the red"], {"seed": 3}),
        ("a", {"seeds": [3, 4], "truncation": 1.5}),
        (["a", "the", "red", "apple"], {"steps": 3, "seed": 3}),
        (["a", "the"], {"steps": 3, "seeds": [1, 2], "square": True}),
        (["a", "a"], {"seed": 3}),  # pictures that are equal
        (["a", "the red"], {"steps": 1010, "seed": 3}),  # more than the columns of a sheet
    ],
)
def test_interpolations_are_the_models_to_the_bit(client, model, prompts, options):
    assert np.array_equal(client.interpolate(prompts, **options), model.interpolate(prompts, **options))


def test_png_is_the_models_file(client, model):
    assert client.png("a red apple", 7, truncation=0.7) == model.png("a red apple", 7, truncation=0.7)


def test_pil_info_and_size(client, model):
    (image,) = client.generate("a", seed=1, as_pil=True)
    assert np.array_equal(np.asarray(image), model.generate("a", seed=1)[0])
    assert [image.size for image in client.interpolate(["a", "b"], 3, 1, as_pil=True)] == 3 * [(8, 8)]
    assert client.info()["id"] == "galip-1"
    assert client.image_size() == (8, 8)


def test_progress_counts_pictures_and_cancels(client):
    seen = []
    client.generate("a", range(7), progress=lambda *numbers: seen.append(numbers))
    assert [seen[0], seen[-1]] == [(0, 7), (7, 7)]
    assert seen == sorted(seen)

    def cancel(done, _):
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        client.generate("a", range(100), progress=cancel)


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": []},
        {"prompts": 7},
        {"prompts": "a", "seeds": [-1]},
        {"prompts": "a", "seed": 2**64},
        {"prompts": "a", "seed": 1, "seeds": [1]},
        {"prompts": ["a", "b"], "seeds": [1, 2, 3]},
        {"prompts": "a", "truncation": 0},
        {"prompts": "a", "truncation": float("nan")},
    ],
)
def test_arguments_that_make_no_sense_are_not_sent(client, service, options):
    with pytest.raises(UsageError):
        client.generate(**options)
    assert not service.sent


def test_odd_interpolations_and_pngs_are_not_sent(client, service):
    for prompts, options in ((["a", "b", "c"], {}), ([], {}), (["a", "b"], {"steps": 1})):
        with pytest.raises(UsageError):
            client.interpolate(prompts, **options)
    with pytest.raises(UsageError, match="one prompt"):
        client.png(["a"])
    assert not service.sent


def test_a_lone_surrogate_is_the_replacement_character(client, model):
    assert np.array_equal(client.generate("a \ud800", seed=1), model.generate("a \ud800", seed=1))


@pytest.mark.parametrize(
    ("answer", "kind_of_error", "words"),
    [
        (error(400), UsageError, "what was wrong"),
        (error(401), UsageError, "api_key="),
        (error(404), UsageError, "what was wrong"),
        (error(413), UsageError, "what was wrong"),
        (error(500, **{"X-Request-Id": "abc"}), GalipError, "under abc"),
        (error(504), DeadlineExceeded, "what was wrong"),
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), ServiceUnavailable, "502 with text/html.*proxy"),
        (httpx.Response(418, text="tea"), GalipError, "418 with text/plain.*tea"),
        (
            httpx.Response(307, headers={"Location": "https://other/"}),
            UsageError,
            "redirects.*https://other/",
        ),
        (httpx.Response(302, headers={"Location": b"\xff://"}), UsageError, "redirects"),
        (httpx.Response(200, html="<h1>Welcome</h1>"), GalipError, "not JSON.*Welcome"),
        (httpx.Response(200, content=b"[" * 100_000), GalipError, "not JSON"),
        (httpx.Response(200, json=[1]), GalipError, "another kind"),
        (httpx.Response(200, json={"data": []}), GalipError, "0 pictures, not 1"),
        (httpx.Response(200, json={"data": [{"b64_json": "§"}]}), GalipError, "base64"),
        (httpx.Response(200, json={"data": [{"url": "http://x"}]}), GalipError, "no PNG"),
        (images(b"\xff\xd8jpeg"), GalipError, "no PNG"),
        (images(png(8, 8)[:-30]), GalipError, "cannot be read"),
        (images(png(8, 8, mode="L")), GalipError, "mode L"),
        (images(png(8, 8), png(8, 8)), GalipError, "2 pictures, not 1"),
    ],
)
def test_answers_that_are_no_pictures(client, service, answer, kind_of_error, words):
    service.failures = [answer]
    with pytest.raises(kind_of_error, match=f"(?s){words}") as caught:
        client.generate("a", seed=1)
    assert type(caught.value) is kind_of_error
    assert len(service.sent) == 1  # none of these is tried again


def test_an_answer_with_too_many_bytes(client, monkeypatch):
    monkeypatch.setattr(bodies, "_MOST_WITHOUT_PICTURES", 10)
    with pytest.raises(GalipError, match="more than 10 bytes"):
        client.info()


def test_an_answer_that_comes_byte_by_byte(kind):
    """Each byte is in time, and the answer is not."""
    gone = threading.Event()

    def answer(listening):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(2**16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not gone.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,), daemon=True)
        thread.start()
        with pytest.raises(DeadlineExceeded, match="in time"):
            kind(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.5).info()
        gone.set()
        thread.join()


@pytest.mark.parametrize("size", ["9" * 5000 + "x8", "8", "x", "8x8x8", None, "-8x8"])
def test_sizes_that_are_none(size):
    with pytest.raises(GalipError, match="its model has the size"):
        answers.image_size_of({"size": size})


@pytest.mark.parametrize("entry", [{}, {"b64_json": "aaaa"}])
def test_a_png_that_is_none(client, service, entry):
    service.failures = [httpx.Response(200, json={"data": [entry]})]
    with pytest.raises(GalipError, match="no PNG"):
        client.png("a", 1)


def test_pictures_of_several_sizes(client, service):
    service.failures = [images(png(8, 8), png(9, 8))]
    with pytest.raises(GalipError, match="several sizes, 8x8 and 9x8"):
        client.generate("a", [1, 2])
    service.failures = [httpx.Response(200, content=png(17, 8))]
    with pytest.raises(GalipError, match="a sheet of 17x8 pixels"):
        client.interpolate(["a", "b"], 8)


def test_a_busy_service_is_tried_again_when_it_says(client, service, model, no_waits):
    service.failures = [error(429, **{"Retry-After": "3"}), error(503, **{"Retry-After": "5"}), error(503)]
    assert np.array_equal(client.generate("a", seed=1), model.generate("a", seed=1))
    waits = [seconds for seconds in no_waits if seconds and seconds > 0.4]
    assert len(service.sent) == 4
    assert 3 <= waits[0] < 4
    assert 5 <= waits[1] < 6.1
    assert waits[2] < 8


def test_a_busy_service_is_not_waited_for_longer_than_the_timeout(kind, service):
    client = kind(URL, timeout=5, transport=service.transport())
    service.failures = [error(429, "the queue is full", **{"Retry-After": "60"})]
    with pytest.raises(ServiceUnavailable, match="the queue is full") as caught:
        client.generate("a", seed=1)
    assert caught.value.retry_after == 60
    assert len(service.sent) == 1


@pytest.mark.parametrize("after", ["nan", "-1", "inf", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 5000])
def test_odd_waits_are_passed_over(client, service, no_waits, after):
    service.failures = [error(503, **{"Retry-After": after})]
    client.generate("a", seed=1)
    assert len(service.sent) == 2


def test_a_lost_connection_is_tried_once_more(client, service, model):
    lost = httpx.RemoteProtocolError("peer closed connection without sending complete message body")
    service.failures = [lost]
    assert np.array_equal(client.generate("a", seed=1), model.generate("a", seed=1))
    service.failures = [lost, lost]
    with pytest.raises(ServiceUnavailable, match="broke off"):
        client.generate("a", seed=1)


def test_an_answer_that_does_not_come_in_time(client, service):
    service.failures = [httpx.ReadTimeout("")]
    with pytest.raises(DeadlineExceeded, match="in time"):
        client.generate("a", seed=1)
    assert len(service.sent) == 1


def test_a_timeout_without_an_end(kind):
    for timeout in (None, 1e300, float("inf")):
        with pytest.raises(ServiceUnavailable, match="no service answers"):
            kind("http://127.0.0.1:9", timeout=timeout).info()


def test_no_service(kind):
    client = kind("http://127.0.0.1:9")  # the port of `discard`, where nothing listens
    with pytest.raises(ServiceUnavailable, match=r"http://127\.0\.0\.1:9.*(?s:.)*galip serve"):
        client.generate("a", seed=1)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a",
        "127.0.0.1:8000",
        "",
        "http://",
        "http://a:b",
        "http://a/?x=1",
        "http://u:p@a",
        None,
        7,
        b"http://a",
    ],
)
def test_urls_that_are_none(kind, url):
    with pytest.raises(UsageError):
        kind(url)


@pytest.mark.parametrize(
    "url", ["http://a/galip", "http://a/galip/", "http://a/galip/v1", "http://a/galip/v1/"]
)
def test_a_path_before_v1(kind, service, url):
    kind(url, transport=service.transport()).info()
    assert service.requests[0].url == "http://a/galip/v1/models"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": ""},
        {"api_key": "a\nb"},
        {"api_key": "ä"},
        {"timeout": 0},
        {"timeout": "1"},
        {"parallel": 0},
    ],
)
def test_options_that_make_no_sense(kind, options):
    with pytest.raises(UsageError):
        kind(URL, **options)


def test_repr_does_not_show_the_key(kind):
    assert repr(kind(URL, "secret-key")) == f"<{'Client' if kind is Client else 'AsyncClient'}: {URL}>"


def test_a_closed_client(service):
    with Client(URL, transport=service.transport()) as client:
        client.info()
    with pytest.raises(UsageError, match="closed"):
        client.info()

    async def asynchronous():
        async with AsyncClient(URL, transport=service.transport()) as client:
            await client.info()
        with pytest.raises(UsageError, match="closed"):
            await client.info()

    asyncio.run(asynchronous())


def test_so_many_requests_are_under_way_and_no_more(model):
    class Slow(FakeService):
        running = most = 0

        async def answer(self, request):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.01)
            self.running -= 1
            return super().answer(request)

    async def draw(service):
        async with AsyncClient(URL, parallel=3, transport=service.transport()) as client:
            await client.generate("a", range(40))

    service = Slow(model)
    asyncio.run(draw(service))
    assert service.most == 3


def test_cancelling_cancels_the_requests(model):
    class Stuck(FakeService):
        ended = 0

        async def answer(self, request):
            if request.method == "GET":
                return super().answer(request)
            self.requests.append(request)
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1

    async def draw(service):
        async with AsyncClient(URL, parallel=2, transport=service.transport()) as client:
            call = asyncio.create_task(client.generate("a", range(40)))
            while len(service.sent) < 2:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    service = Stuck(model)
    asyncio.run(draw(service))
    assert service.ended == len(service.sent) == 2


def test_an_error_ends_the_call(client, service):
    service.failures = [error(400, "no")]
    with pytest.raises(UsageError, match="no"):
        client.generate("a", range(100))
    assert len(service.sent) < 20


def test_it_needs_httpx_but_no_onnxruntime():
    script = (
        "import sys, galip_runtime.client\n"
        "assert not {'httpx', 'onnxruntime', 'openvino'} & set(sys.modules), sys.modules\n"
        "sys.modules['httpx'] = None\n"
        "try: galip_runtime.client.Client('http://a')\n"
        "except galip_runtime.UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "httpx" in done.stdout
    assert "install" in done.stdout
