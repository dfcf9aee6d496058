"""Running work in a forked child that is killed, as by kill -9, a power cut or the OOM killer."""

import contextlib
import itertools
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Work", "in_child", "killed"]

_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
}
_ORPHAN_SECONDS = 30


@dataclass(frozen=True)
class Work:
    """The extent of some work that runs to its end."""

    seconds: float
    changes: int
    """How often it opens a file to write, renames or removes one."""


def in_child(action: Callable[[], object], log: Path) -> Work:
    """Run `action` in a child with its output in `log`. Raises AssertionError if it fails."""
    count, began = log.with_suffix(".count"), time.monotonic()
    child = _Child(action, log, None, count)
    code = child.wait()
    assert code == 0, f"exit code {code}:\n{log.read_text(errors='replace')[-4000:]}"
    return Work(time.monotonic() - began, int(count.read_text()))


def killed(action: Callable[[], object], work: Work, rng: np.random.Generator, log: Path) -> str:
    """Run `action`, which takes `work`, in a child, kill it at a random point and return when.

    The point is a time, or just before one of its changes to files, since two renames may be microseconds
    apart. Raises AssertionError if it fails before, or if its own children outlive it.
    """
    change = int(rng.integers(1, work.changes + 1)) if rng.random() < 0.5 else None
    child = _Child(action, log, change)
    if change is None:
        seconds = float(rng.uniform(0, work.seconds))
        code = child.wait(seconds)
        when = f"after {seconds:.3f} s"
    else:
        code = child.wait()
        when = f"before change {change}"
    assert code in (0, -signal.SIGKILL), f"exit code {code}:\n{log.read_text(errors='replace')[-4000:]}"
    return when


class _Child:
    def __init__(
        self, action: Callable[[], object], log: Path, change: int | None, count: Path | None = None
    ) -> None:
        # The child and its children keep one end of the pipe open
        self._alive, ours = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                changes = _watch(change)
                action()
                if count:
                    count.write_text(str(next(changes) - 1))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        os.close(ours)

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code, negative for a signal. Kills the child after `seconds`."""
        if seconds is not None and not select.select([self._alive], [], [], seconds)[0]:
            os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        gone = select.select([self._alive], [], [], _ORPHAN_SECONDS)[0]
        os.close(self._alive)
        assert gone, f"its children are still alive {_ORPHAN_SECONDS} s after it ended"
        return os.waitstatus_to_exitcode(status)


def _watch(change: int | None) -> "itertools.count[int]":
    """Count this process's changes to files, and kill it before the `change`-th."""
    changes, own = itertools.count(1), os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _CHANGES:
            return
        if os.getpid() == own and next(changes) == change:
            os.kill(own, signal.SIGKILL)

    sys.addaudithook(hook)
    return changes
