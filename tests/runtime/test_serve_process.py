"""`python -m galip_runtime.serve` as a process: start, signals, and what is left when it has ended."""

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from error_checks import assert_names
from galip_runtime.install import install_extra
from galip_runtime.serve.listening import refusal
from galip_runtime.serve.settings import ServeSettings
from serve_process import Background, Process, until

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def serve(*arguments, **options):
    """Run the command where it must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "galip_runtime.serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(shared_bundle, tmp_path, number):
    with Process(shared_bundle, folder=tmp_path) as service:
        assert service.request("GET", "/healthz")[0] == 200
        assert service.request("GET", "/readyz")[0] == 200
        status, _, answer = service.draw(seed=7)
        assert (status, answer["data"][0]["seed"]) == (200, 7)
        assert service.stop(number) == 0
        assert "Traceback" not in service.log
        assert service.log.startswith(f"galip: serving {shared_bundle} at http://127.0.0.1:{service.port}/")
        assert service.process.stdout.read() == ""
        assert not list(service.temporary.iterdir())


def test_sigterm_under_load_loses_nothing_that_was_sent(shared_bundle, tmp_path):
    options = ["--max-batch", 16, "--queue", 100]
    with Process(shared_bundle, *options, folder=tmp_path, batch_seconds=0.2) as service:
        calls = service.burst(100)  # most of which it has not accepted yet
        assert service.stop() == 0
        assert sorted((status, seed) for status, _, seed in calls.join()) == [(200, i) for i in range(100)]
        assert_names(service.log, "stopping", "stopped")


def test_connections_without_a_request_do_not_delay_the_end(shared_bundle, tmp_path):
    with Process(shared_bundle, folder=tmp_path) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        assert service.request("GET", "/healthz", connection=connection)[0] == 200
        silent = socket.create_connection(("127.0.0.1", service.port))
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 20  # the grace is 30
        assert silent.recv(1) == b""
        silent.close()
        connection.close()


def test_what_is_not_done_within_the_grace_is_told_so(shared_bundle, tmp_path):
    with Process(
        shared_bundle, "--grace", 0.5, "--max-batch", 1, folder=tmp_path, batch_seconds=2
    ) as service:
        calls = service.burst(6)
        assert service.stop() == 0
        statuses = {status for status, _, _ in calls.join()}
        assert 503 in statuses
        assert statuses <= {200, 503}
        assert "Traceback" not in service.log


def test_a_second_signal_ends_it_at_once(shared_bundle, tmp_path):
    with Process(shared_bundle, "--max-batch", 1, folder=tmp_path, batch_seconds=300) as service:
        calls = Background(lambda _: service.draw(), 2)
        until(lambda: b"galip_queue_length 1.0" in service.request("GET", "/metrics")[2])
        service.process.send_signal(signal.SIGINT)
        service.wait_for("stopping")
        assert service.stop(signal.SIGINT, 20) == 130
        assert_names(service.log, "at once")
        assert all(isinstance(result, Exception) for result in calls.join())


def test_the_port_is_in_use(shared_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(shared_bundle, "--port", port)
    assert done.returncode == 2
    assert_names(done.stderr, port, "127.0.0.1", "--port")
    assert done.stdout == ""


def test_two_that_start_at_once_do_not_share_a_port(shared_bundle, tmp_path):
    """Both may bind to it, and only one can listen."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with Process(shared_bundle, "--port", port, folder=tmp_path) as service:
            assert service.port == port
            done = serve(shared_bundle, "--port", port)
            assert done.returncode == 2
            assert_names(done.stderr, port)
            assert service.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["/nowhere"], 4, ["/nowhere"]),
        (["BUNDLE", "--host", "0.0.0.0"], 2, ["0.0.0.0", "--api-key-file", "--insecure"]),
        (["BUNDLE", "--host", "203.0.113.9", "--insecure"], 2, ["203.0.113.9", "127.0.0.1"]),
        (["BUNDLE", "--host", "no.such.host.invalid"], 2, ["no.such.host.invalid"]),
        (["BUNDLE", "--port", "65536"], 2, [65536, "65,535"]),
        (["BUNDLE", "--port", "x"], 2, ["--port", "x"]),
        (["BUNDLE", "--queue", "0"], 2, ["queue", 0]),
        (["BUNDLE", "--timeout", "nan"], 2, ["timeout", "nan"]),
        (["BUNDLE", "--workers", "0"], 2, ["workers", 0]),
        (["BUNDLE", "--log-format", "xml"], 2, ["xml", "json"]),
        (["BUNDLE", "--cors", "https://a.example/"], 2, ["https://a.example/", "https://example.org"]),
        (["BUNDLE", "--precision", "int4", "--port", "0"], 2, ["int4", "fp32"]),
        (["BUNDLE", "--device", "gpu", "--port", "0"], 2, ["gpu", "cuda"]),
        (["BUNDLE", "--api-key-file", "/nowhere"], 4, ["/nowhere"]),
        (["BUNDLE", "--nonsense"], 2, ["--nonsense"]),
    ],
)
def test_mistakes(shared_bundle, arguments, code, values):
    done = serve(*[shared_bundle if word == "BUNDLE" else word for word in arguments])
    assert done.returncode == code, done.stderr
    assert_names(done.stderr, *values)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_mistake_is_found_before_anything_large_is_imported():
    code = """
import sys
from galip_runtime.serve.__main__ import main
print(main(["/nowhere"]), {"fastapi", "uvicorn", "onnxruntime", "prometheus_client"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4 set()\n"


def test_a_missing_package_is_named_with_its_remedy(shared_bundle):
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "uvicorn" else find(name, *rest)
from galip_runtime.serve.__main__ import main
sys.exit(main([{str(shared_bundle)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert_names(done.stderr, "uvicorn")
    assert install_extra("serve") in done.stderr


def test_ipv6_and_names(shared_bundle, tmp_path):
    with Process(shared_bundle, "--host", "localhost", folder=tmp_path) as service:
        assert service.host == "localhost"
        assert service.request("GET", "/healthz")[0] == 200
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("number", "values"),
    [
        (errno.EADDRINUSE, ["80", "203.0.113.9", "--port"]),
        (errno.EACCES, ["80", "1024", "--port"]),
        (errno.EADDRNOTAVAIL, ["203.0.113.9", "127.0.0.1"]),
        (errno.EMFILE, ["80", "203.0.113.9", os.strerror(errno.EMFILE)]),
    ],
)
def test_what_the_system_refuses(number, values):
    settings = ServeSettings(host="203.0.113.9", port=80)
    assert_names(str(refusal(settings, OSError(number, os.strerror(number)))), *values)
