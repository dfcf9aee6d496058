"""Forked processes: a child has its parent's memory, but none of the threads that work on it."""

import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import Protocol

__all__ = ["Lock", "call_after_fork", "never_free"]


class _Forked(Protocol):
    def forked(self) -> None: ...


_members: weakref.WeakSet[_Forked] = weakref.WeakSet()


def call_after_fork(member: _Forked) -> None:
    """In each process that is forked from this one, call `member.forked()` first, if `member` is alive."""
    _members.add(member)


_awaited: weakref.WeakSet["Lock"] = weakref.WeakSet()
_held: list["Lock"] = []
"""by the thread that forks"""
_LONGEST_WAIT = 60.0  # seconds; a thread that forks while it holds a lock itself would wait for ever


def _before() -> None:
    _held.extend(lock for lock in list(_awaited) if lock.acquire(_LONGEST_WAIT))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for member in list(_members):
        member.forked()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def never_free(native: object) -> None:
    """Keep `native` until the process has ended, past the end of the interpreter.

    The destructors of onnxruntime's and OpenVINO's objects join threads. A forked child has none of them, so
    it would wait for ever.
    """
    count_up = ctypes.pythonapi.Py_IncRef
    count_up.argtypes, count_up.restype = [ctypes.py_object], None
    count_up(native)


class Lock:
    """A lock that is free in a forked process, whoever held it in the parent."""

    def __init__(self, *, awaited: bool = False) -> None:
        """`awaited`: a fork waits until nobody holds it. Whoever holds it may not take another lock."""
        self.forked()
        call_after_fork(self)
        if awaited:
            _awaited.add(self)

    def forked(self) -> None:
        """Begin anew: the thread that would release it may not be in this process."""
        self._lock = threading.Lock()

    def acquire(self, timeout: float = -1) -> bool:
        """Whether it was got within `timeout` seconds; below 0, it is waited for without a limit."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
