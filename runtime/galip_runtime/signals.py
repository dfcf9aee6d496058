"""Signals and child processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["held_back"]


@contextmanager
def held_back(*names: str) -> Iterator[None]:
    """Block the signals `names`, such as SIGINT, while the block starts processes by `spawn`.

    A process inherits which signals are blocked, so it cannot die of one before it can handle it. Does
    nothing for signals that the system does not have.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, which unblocks SIGINT and SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.Signals[name] for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
