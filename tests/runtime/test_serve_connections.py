"""Limits of the service's connections: slow, silent and greedy clients."""

import contextlib
import os
import socket
import sys
from types import SimpleNamespace

import pytest
from serve_process import SLOW, Process

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

SHORT = """
from galip_runtime.serve import connections

connections.REQUEST_SECONDS, connections.ANSWER_SECONDS, connections.MOST_CONNECTIONS = {}
"""


@pytest.fixture
def serve(shared_bundle, tmp_path):
    """Starts a service with other limits: seconds for a request and for an answer, connections."""
    with contextlib.ExitStack() as stack:

        def start(*limits):
            (tmp_path / "sitecustomize.py").write_text(SHORT.format(limits))
            path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
            return stack.enter_context(
                Process(shared_bundle, folder=tmp_path, environment={"PYTHONPATH": path})
            )

        yield start


def connect(service, data=b""):
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    connection.sendall(data)
    return connection


def read(connection):
    """Read until the service closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


POST = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_request_has_to_arrive_in_time(serve):
    service = serve(0.5, 1, 100)
    assert read(connect(service)) == b""
    assert read(connect(service, b"GET /healthz HTT")).startswith(b"HTTP/1.1 408 ")
    assert read(connect(service, POST)).startswith(b"HTTP/1.1 408 ")
    assert read(connect(service, POST + b"Content-Length: 9\r\n\r\n{")).startswith(b"HTTP/1.1 408 ")
    late = connect(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
    late.sendall(b"GET /hea")  # the second request of the connection
    assert read(late).rpartition(b"HTTP/1.1 ")[2].startswith(b"408 ")
    assert service.request("GET", "/healthz")[0] == 200
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_drawing_takes_as_long_as_it_takes(shared_bundle, tmp_path):
    """The time for a request to arrive is not the time to answer it."""
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "sitecustomize.py").write_text(SHORT.format((0.5, 1, 100)) + SLOW)
    path = os.pathsep.join([str(tmp_path / "both"), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "TEST_SECONDS_A_BATCH": "1.5"}
    with Process(shared_bundle, folder=tmp_path, environment=environment) as service:
        assert service.draw()[0] == 200


def test_a_header_is_limited(serve):
    service = serve(30, 1, 100)
    connection = connect(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(2000):
            connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
    answer = read(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert service.request("GET", "/healthz")[0] == 200


def test_silent_connections_make_room(serve):
    service = serve(60, 60, 20)
    silent = [connect(service, b"GET / HT") for _ in range(60)]
    assert service.request("GET", "/healthz")[0] == 200
    assert read(silent[0]) == b""
    keeps = connect(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert keeps.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert service.stop() == 0
    for connection in silent:
        connection.close()


def test_pipelined_requests_are_answered_in_order(serve):
    service = serve(60, 60, 20)
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    connection = connect(service, (get + b"\r\n") * 4 + get + b"Connection: close\r\n\r\n")
    assert read(connection).count(b"HTTP/1.1 200 ") == 5
    assert service.stop() == 0


def test_overload_is_429_and_not_503(shared_bundle, tmp_path):
    options = ["--queue", 2, "--max-batch", 1]
    with Process(shared_bundle, *options, folder=tmp_path, batch_seconds=0.3) as service:
        results = service.burst(60).join()
        statuses = [status for status, _, _ in results]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 3
        assert service.stop() == 0


def test_connections_leave_room_for_the_processs_own_files(monkeypatch):
    resource = pytest.importorskip("resource")
    from galip_runtime.serve.connections import MOST_CONNECTIONS, most_connections

    for allowed, expected in (
        (256, 156),
        (50, 1),
        (10**6, MOST_CONNECTIONS),
        (resource.RLIM_INFINITY, MOST_CONNECTIONS),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert most_connections() == expected


def test_an_answer_that_nobody_reads_is_given_up():
    from galip_runtime.serve.connections import Connection, Waiting

    ended = []
    connection = Connection.__new__(Connection)
    connection._waiting, connection._timer = Waiting(1), None
    connection.transport = SimpleNamespace(is_closing=lambda: True, abort=lambda: ended.append("aborted"))
    connection._time_is_up()
    assert ended == ["aborted"]
