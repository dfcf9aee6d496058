"""Connecting to a Ray cluster: the forms of an address, and what is said where nothing answers."""

import signal
import socket
import subprocess
import sys

import pytest
from galip_runtime import ray_cluster
from galip_runtime.errors import ProviderUnavailable, ServiceUnavailable, UsageError
from galip_runtime.ray_cluster import check_address, connect
from galip_runtime.signals import HANGUP, STOP

pytestmark = pytest.mark.xdist_group("ray")


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.0.0.1:1", "[::1]:65535"])
def test_addresses(address):
    check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":1", "head:0", "head:65536", "head:-1", "head:1e3", "h:٣"]
)
def test_no_addresses(address):
    with pytest.raises(UsageError, match="HOST:PORT, auto or local"):
        check_address(address)


def test_ray_client_is_refused_with_what_to_do():
    with pytest.raises(UsageError, match="ray job submit"), connect("ray://head:10001"):
        pass


def test_nobody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        with (
            pytest.raises(ServiceUnavailable, match=rf"{address} \(.*refused.*--ray local"),
            connect(address),
        ):
            pass


def test_something_else_listens():
    """Ray would go on trying for minutes."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ServiceUnavailable, match="no answer within 3 s"), connect(address, seconds=3):
            pass


def test_a_host_without_a_name():
    with (
        pytest.raises(ServiceUnavailable, match=r"no-such-host\.invalid:1"),
        connect("no-such-host.invalid:1"),
    ):
        pass


def test_what_the_probe_says_is_told(monkeypatch):
    text = "Traceback (most recent call last):\n  ...\nRuntimeError: Version mismatch: the cluster has 2.1\n"
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=text)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ServiceUnavailable, match=r"at auto \(Version mismatch: the cluster has 2\.1\)"):
        ray_cluster._check_answers("auto", 1)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ProviderUnavailable, match="Ray is not installed"), connect("local"):
        pass


def test_the_module_imports_no_ray():
    code = "import sys, galip_runtime.ray_cluster; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ray_started_here(monkeypatch):
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token to the home folder
    handlers = [signal.getsignal(number) for number in (*STOP, *HANGUP)]
    with connect("local", cpus=1):
        assert ray.cluster_resources()["CPU"] == 1
        with connect("auto"):  # as within a Ray job: the connection there is, which stays
            assert ray.is_initialized()
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert [signal.getsignal(number) for number in (*STOP, *HANGUP)] == handlers  # Ray sets one and leaves it
