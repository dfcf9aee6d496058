"""A peer's process, as the study sees it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from studies.peers.loaders import PEERS, Floats, Task

__all__ = ["PeerFailed", "PeerProcess"]

_WORKER = "studies.peers.worker"
_STUDIES = Path(__file__).parents[2]


class PeerFailed(Exception):
    """A peer cannot run, or ended; the text says why."""


class PeerProcess:
    """A worker with one peer."""

    def __init__(self, task: Task, python: Path, environment: Mapping[str, str]) -> None:
        """`python`: the interpreter of the peers' environment. `environment`: beside this process's own.

        Raises `PeerFailed` if that interpreter is needed and is not there.
        """
        peer = PEERS[task.peer]
        if peer.own_python and not python.is_file():
            raise PeerFailed(f"there is no {python} with MNN, ncnn and pnnx; `make bench-peers` makes it")
        self._image = task.image
        own = {} if peer.own_python else {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        path = os.pathsep.join(filter(None, [str(_STUDIES), *own.values()]))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [python if peer.own_python else sys.executable, "-m", _WORKER, json.dumps(asdict(task))],
            env={**os.environ, **environment, **peer.environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, encoding="utf-8",
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def loaded(self) -> dict[str, Any]:
        """Wait until the peer is loaded; return its `library` and `kernels`. Raises `PeerFailed`."""
        return self._answer()

    def turn(self, batch: int, first: int) -> tuple[Floats, float]:
        """Return what `Turns.take` does in the process. Raises `PeerFailed`."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # the missing answer says why
            print(json.dumps([batch, first]), file=self._process.stdin, flush=True)
        seconds = self._answer()["seconds"]
        return np.load(self._image), seconds

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise PeerFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise PeerFailed(answer["failed"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {end}" + (f": {lines[-1]}" if lines else "")
