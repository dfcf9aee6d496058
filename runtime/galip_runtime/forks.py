"""Forked processes: a child has its parent's memory, but none of the threads that work on it."""

import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import Protocol

__all__ = ["Lock", "call_after_fork", "native_work", "never_free"]


class _Forked(Protocol):
    def forked(self) -> None: ...


_members: weakref.WeakSet[_Forked] = weakref.WeakSet()


def call_after_fork(member: _Forked) -> None:
    """In each process that is forked from this one, call `member.forked()` first, if `member` is alive."""
    _members.add(member)


class _NativeWork:
    """`with native_work:` around what a native library does that a fork may not interrupt.

    A fork waits until no other thread is within, and keeps others out meanwhile: a lock that such a thread
    held in the library would be held in the child for ever. May be nested.
    """

    _LONGEST_WAIT = 60.0  # seconds; then the fork goes ahead

    def __init__(self) -> None:
        self._own = threading.local()
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()  # reentrant: a destructor may run at any place in here
        self._within, self._forking = self._depth(), False

    def _depth(self) -> int:
        """How often this thread is within."""
        depth: int = getattr(self._own, "depth", 0)
        return depth

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._depth() or not self._forking)
            self._own.depth = self._depth() + 1
            self._within += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._within -= 1
            self._own.depth -= 1
            self._changed.notify_all()

    def before_fork(self) -> None:
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: self._within == self._depth(), self._LONGEST_WAIT)

    def in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def in_child(self) -> None:
        self._begin()
        for member in list(_members):
            member.forked()


native_work = _NativeWork()
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(
        before=native_work.before_fork,
        after_in_parent=native_work.in_parent,
        after_in_child=native_work.in_child,
    )


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

    def __init__(self) -> None:
        self.forked()
        call_after_fork(self)

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
