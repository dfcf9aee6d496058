"""Services as processes on loopback, and what wrk and /proc say of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from galip_runtime.errors import GalipError, UsageError

__all__ = ["Load", "Server", "find_wrk", "load", "plain_handler", "serve"]

_CALLERS = Path(__file__).with_name("callers.lua")
_MAX_START = 120.0
_MAX_STOP = 60.0
_MAX_ANSWER = 120  # seconds that wrk waits for an answer


class Server:
    """A service in a process of its own, in a block."""

    def __init__(
        self, command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        """`command`: it serves at `port` on loopback; `environment`: beside this process's own."""
        self.url = f"http://127.0.0.1:{port}"
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdout=self._printed, stderr=self._printed
        )

    def __enter__(self) -> Self:
        end = time.monotonic() + _MAX_START
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                self._printed.seek(0)
                printed = self._printed.read().decode(errors="replace").splitlines()
                raise GalipError(f"the service was not ready within {_MAX_START:.0f} s", *printed[-10:])
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()
        self._printed.close()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process ends, at most 60 seconds, and return the exit code."""
        return self._process.wait(_MAX_STOP)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def memory(self) -> int:
        """Return the bytes in memory of the process and its children."""
        return sum(_memory(pid) for pid in (self.pid, *children(self.pid)))


def children(pid: int) -> list[int]:
    """Return the numbers of the processes that `pid` has started, theirs too."""
    own = [
        int(number)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for number in (task / "children").read_text().split()
    ]
    return [one for child in own for one in (child, *children(child))]


def _memory(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(bundle: Path | None, *options: str) -> Server:
    """Return `galip serve` with a bundle, on a free port; None for the shipped one."""
    port = _free_port()
    command = [sys.executable, "-m", "galip_runtime.serve", *([str(bundle)] if bundle else [])]
    return Server([*command, "--port", str(port), "--device", "cpu", *options], port)


def plain_handler(bundle: Path | None) -> Server:
    """Return `plain_handler` with a bundle, on a free port."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "studies.serving.plain_handler:app", "--log-level", "warning"]
    environment = {"BUNDLE": str(bundle)} if bundle else {}
    return Server([*command, "--no-access-log", "--port", str(port)], port, environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    seconds: float
    statuses: dict[str, int]
    """answers by HTTP status"""
    failed: int
    """requests without an answer"""
    median_ms: float
    p99_ms: float

    @property
    def pictures_per_second(self) -> float:
        """Pictures that came in a second."""
        return self.statuses.get("200", 0) / self.seconds


def find_wrk() -> str:
    """Return the path of the program wrk. Raises UsageError where it is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise UsageError("wrk is not installed, which makes the load; Debian's package has its name")
    return wrk


def load(url: str, callers: int, seconds: float, first_seed: int, pause_ms: int = 0) -> Load:
    """Ask for pictures with seeds of their own from `callers` connections at once, for `seconds`.

    `pause_ms`: what each caller waits before a request. Raises UsageError without wrk.
    """
    command = [
        find_wrk(),
        "-t1",
        f"-c{callers}",
        f"-d{seconds:g}s",
        f"--timeout={_MAX_ANSWER}s",
        "-s",
        str(_CALLERS),
        url,
    ]
    done = subprocess.run([*command, "--", str(first_seed), str(pause_ms)], capture_output=True, text=True)
    if done.returncode:
        raise GalipError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return Load(**json.loads(done.stdout.splitlines()[-1]))
