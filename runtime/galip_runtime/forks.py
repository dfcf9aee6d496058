"""Support for forked processes: a child has its parent's memory, but none of the parent's other threads."""

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
    """Call `member.forked()` first thing in each process forked from this one, while `member` is alive."""
    _members.add(member)


class _NativeWork:
    """A guard, `with native_work:`, around work in a native library that a fork must not interrupt.

    A fork waits until no other thread is inside and keeps others out until it is done: a lock that such a
    thread held in the library would stay locked in the child for ever. May be nested.
    """

    _MAX_WAIT = 60.0  # seconds; then the fork goes ahead

    def __init__(self) -> None:
        self._local = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()  # reentrant: a destructor may run anywhere in this class
        self._inside, self._forking = self._depth(), False

    def _depth(self) -> int:
        """Return how many nested blocks this thread is in."""
        depth: int = getattr(self._local, "depth", 0)
        return depth

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._depth() or not self._forking)
            self._local.depth = self._depth() + 1
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._local.depth -= 1
            self._changed.notify_all()

    def before_fork(self) -> None:
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: self._inside == self._depth(), self._MAX_WAIT)

    def in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def in_child(self) -> None:
        self._reset()
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
    """Keep `native` alive until the process has ended, even while the interpreter shuts down.

    The destructors of onnxruntime's and OpenVINO's objects join threads. A forked child has none of these
    threads and would wait for ever.
    """
    increment_reference = ctypes.pythonapi.Py_IncRef
    increment_reference.argtypes, increment_reference.restype = [ctypes.py_object], None
    increment_reference(native)


class Lock:
    """A lock that is free in a forked process, whoever held it in the parent."""

    def __init__(self) -> None:
        self.forked()
        call_after_fork(self)

    def forked(self) -> None:
        """Start with a new lock: the thread that would release the old one may not be in this process."""
        self._lock = threading.Lock()

    def acquire(self, timeout: float = -1) -> bool:
        """Acquire the lock and return True, or False after `timeout` seconds; below 0, wait without limit."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
