"""Signals during an export: they end it in order, but not in the middle of what must not be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["signals_raise", "signals_wait"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit; otherwise they would end the process on the spot."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with _handled([number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL], leave):
        yield


@contextmanager
def signals_wait() -> Iterator[list[int]]:
    """Hold signals back until the block ends, and yield the list of those that have come."""
    waiting: list[int] = []
    ignored = (signal.SIG_IGN, None)  # and stay so
    with _handled(
        [number for number in _SIGNALS if signal.getsignal(number) not in ignored],
        lambda number, frame: waiting.append(number),
    ):
        yield waiting
    if waiting:
        signal.raise_signal(waiting[0])


@contextmanager
def _handled(numbers: list[int], handler: Any) -> Iterator[None]:
    """Install `handler` for the signals `numbers`, in the main thread; other threads may not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
