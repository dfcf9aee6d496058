"""The service's logs: what they tell, and what they never do."""

import json
import logging
import sys

import pytest
from galip_runtime.serve import logs
from galip_runtime.serve.settings import ServeSettings
from serve_process import Process

ACCESS = "galip_runtime.serve.access"
PROMPT = "a secret unicorn"


@pytest.fixture
def log(capsys):
    """Configures the logs; gives a function that logs a record and returns what stderr has of it."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)

    def write(message, *arguments, name="galip_runtime.serve", error=None, settings=None, **parts):
        logs.configure(settings or ServeSettings())
        logging.getLogger(name).error(message, *arguments, exc_info=error, extra=parts)
        return capsys.readouterr().err

    yield write
    root.handlers = before
    logging.captureWarnings(False)


def access(log, settings=None, **parts):
    known = {
        "method": "GET",
        "path": "/v1/picture",
        "query": "prompt=secret",
        "status": 200,
        "seconds": 0.0123,
    }
    return log(
        "unused",
        name=ACCESS,
        settings=settings,
        **{**known, "request_id": "r1", "client": "127.0.0.1", **parts},
    )


def test_a_line_for_a_request(log):
    line = access(log, pictures=2, prompts=["secret"])
    assert line.count("\n") == 1
    assert line.endswith(
        "GET /v1/picture status=200 seconds=0.0123 pictures=2 client=127.0.0.1 request_id=r1\n"
    )
    assert "secret" not in line


def test_a_request_as_json(log):
    line = json.loads(access(log, ServeSettings(log_format="json"), pictures=2, prompts=["secret"]))
    assert line.pop("time").endswith("Z")
    assert line.pop("process") > 0
    assert line == {
        "level": "error", "logger": ACCESS, "message": "request", "method": "GET", "path": "/v1/picture",
        "status": 200, "seconds": 0.0123, "pictures": 2, "client": "127.0.0.1", "request_id": "r1",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_prompts_only_where_they_are_asked_for(log, form):
    line = access(log, ServeSettings(log_format=form, log_prompts=True), prompts=[PROMPT])
    assert PROMPT in line
    assert "/v1/picture?prompt=secret" in line
    try:
        raise RuntimeError(f"cannot draw {PROMPT!r}: a “{PROMPT}”")
    except RuntimeError as error:
        hidden = log(
            "it failed: %r", error, error=error, settings=ServeSettings(log_format=form), prompts=[PROMPT]
        )
        shown = log("it failed", error=error, settings=ServeSettings(log_format=form, log_prompts=True))
    assert PROMPT not in hidden
    assert "RuntimeError" in hidden
    assert "test_serve_logs.py" in hidden
    assert PROMPT in shown


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "nasty", ["a\nb", "a\r\nb", "\x1b[31m", "\u202e", "\u2028", "\x00", "\ud800", " x=1 "]
)
def test_no_request_writes_a_line_of_its_own(log, form, nasty):
    settings = ServeSettings(log_format=form, log_prompts=True)
    for line in (
        access(log, settings, path=f"/{nasty}", method="GET", prompts=[nasty], client=nasty),
        log(f"an error: {nasty}", settings=settings),
    ):
        assert len(line.splitlines()) == 1
        assert not any(character in line[:-1] for character in nasty if not character.isprintable())
        if form == "json":
            assert nasty in "".join(str(value) for value in json.loads(line).values())
    if nasty == " x=1 ":
        assert '"/ x=1 "' in access(log, ServeSettings(), path=f"/{nasty}")


def test_a_traceback_is_indented_or_one_field(log):
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError as error:
        text = log("it failed", error=error, request_id="r7")
        line = json.loads(
            log("it failed", error=error, settings=ServeSettings(log_format="json"), request_id="r7")
        )
    first, *rest = text.splitlines()
    assert first.endswith("error it failed request_id=r7")
    assert all(part.startswith("    ") for part in rest)
    assert line["request_id"] == "r7"
    assert "RuntimeError: two\nlines" in line["traceback"]


def test_uvicorns_access_log_is_off(log):
    log("x")
    assert not logging.getLogger("uvicorn.access").isEnabledFor(logging.INFO)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_log_of_a_service(shared_bundle, tmp_path):
    pytest.importorskip("fastapi")
    with Process(shared_bundle, "--log-format", "json", folder=tmp_path) as service:
        headers = {"X-Request-Id": "mine-1"}
        assert service.draw(PROMPT, headers)[1]["x-request-id"] == "mine-1"
        assert service.request("GET", "/%0afake?prompt=a%20secret%20unicorn")[0] == 404
        assert service.draw("red", {"X-Request-Id": "bad id"})[1]["x-request-id"] != "bad id"
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.log.splitlines()]
        assert "serving" in lines[0]["message"]
        requests = [line for line in lines if line["message"] == "request"]
        assert [(line["method"], line["path"], line["status"]) for line in requests] == [
            ("POST", "/v1/images/generations", 200),
            ("GET", "/\nfake", 404),
            ("POST", "/v1/images/generations", 200),
        ]
        assert (requests[0]["request_id"], requests[0]["pictures"]) == ("mine-1", 1)
        assert "unicorn" not in service.log
    with Process(shared_bundle, "--log-prompts", folder=tmp_path) as service:
        service.draw(PROMPT)
        assert service.stop() == 0
        assert PROMPT in service.log
