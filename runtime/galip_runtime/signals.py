"""Signals, for what starts processes: handlers and a mask that last for a block."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

__all__ = ["HANGUP", "STOP", "blocked", "handled", "stop_as_ctrl_c"]

STOP = (signal.SIGINT, signal.SIGTERM)
HANGUP = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
"""SIGHUP; nothing on Windows"""


@contextmanager
def handled(handlers: Mapping[int, Callable[[int, FrameType | None], object]]) -> Iterator[None]:
    """Handle signals, by number, while the block runs. Only the main thread can."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def blocked(*numbers: int) -> Iterator[None]:
    """Hold signals back while the block runs. A process that it spawns begins with them held back.

    Windows has no such mask; there, nothing is held back.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, which unblocks SIGINT and SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block for SIGTERM and SIGHUP, too, so that workers end with it.

    In another thread than the main one, which alone can handle signals, this changes nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    with handled(dict.fromkeys((signal.SIGTERM, *HANGUP), _interrupt) if is_main else {}):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
