"""A folder that appears whole or not at all, whatever interrupts its making."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.manifest import MANIFEST_NAME, read_manifest

__all__ = ["signals_wait", "staged_bundle", "write"]

_TEMPORARY = ".galip-export-"
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def staged_bundle(out: Path, *, overwrite: bool, size: int) -> Iterator[Path]:
    """A new folder beside `out` to fill: renamed to `out` when the block ends, removed when it raises.

    `size`: bytes that it is going to take. With `overwrite`, it replaces a bundle or an empty folder.
    SIGTERM and SIGHUP end the block too, as `SystemExit`.

    Raises UsageError, before the block runs where it can be known, when `out` is there and is not to be
    replaced, and when nothing can be written beside it.
    """
    out = Path(os.path.abspath(out))
    staging = out.parent / f"{_TEMPORARY}{secrets.token_hex(6)}"
    created: list[Path] = []
    with _signals_raise():
        try:
            _prepare(staging, out, overwrite, size, created)
            yield staging
            with signals_wait():
                _publish(staging, out, overwrite)
        except BaseException:
            with signals_wait():
                if staging.exists():
                    shutil.rmtree(staging)
                for folder in reversed(created):
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()
            raise


def write(path: Path, data: bytes) -> None:
    """Write a file of the bundle. Raises UsageError where the disk or the folder doesn't take it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"cannot write {len(data):,} bytes to {path.parent}: {error.strerror}; "
            "make room or choose another folder"
        ) from error


def _check_target(out: Path, overwrite: bool) -> None:
    """Raise UsageError unless `out` is free, or may be replaced without losing anybody's files."""
    if out.is_symlink():
        raise UsageError(f"{out} is a link; name the folder itself")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, and a bundle is a folder; choose another name")
    if not overwrite:
        raise UsageError(f"{out} exists already; choose another name, or allow overwriting (--overwrite)")
    files = {
        str((Path(root) / name).relative_to(out).as_posix())
        for root, folders, names in os.walk(out)
        for name in (*names, *(folder for folder in folders if os.path.islink(os.path.join(root, folder))))
    }
    if not files:
        return
    try:
        listed = read_manifest(out).files
    except FileRefused as error:
        raise UsageError(
            f"{out} is neither a bundle nor an empty folder, so it is not overwritten ({error}); "
            "choose another name"
        ) from error
    foreign = sorted(files - {MANIFEST_NAME, *listed})
    if foreign:
        raise UsageError(
            f"{out} holds files that are not the bundle's, so it is not overwritten: "
            f"{', '.join(foreign[:5])}{' …' if len(foreign) > 5 else ''}; move them elsewhere first"
        )


def _prepare(staging: Path, out: Path, overwrite: bool, size: int, created: list[Path]) -> None:
    """Make `staging`, where `size` bytes fit, and the folders above it; those go into `created`."""
    try:
        _check_target(out, overwrite)
        for folder in [each for each in staging.parents if not each.exists()][::-1]:
            folder.mkdir()
            created.append(folder)
        staging.mkdir()
        free = shutil.disk_usage(staging).free
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder you may write to") from error
    if free < size:
        raise UsageError(
            f"{out.parent} has {free / 1e6:,.0f} MB free and the bundle needs about "
            f"{size / 1e6:,.0f} MB; make room or choose another folder"
        )


def _publish(staging: Path, out: Path, overwrite: bool) -> None:
    """Rename `staging` to `out`. What is replaced is out of the way for the moment between two renames."""
    _check_target(out, overwrite)  # again: minutes have passed
    old = staging.with_name(staging.name + ".old")
    try:
        if out.exists():
            os.rename(out, old)
        os.rename(staging, out)  # fails where another export has put a bundle there meanwhile
    except OSError as error:
        if old.exists() and not out.exists():
            os.rename(old, out)
        raise UsageError(
            f"{out} could not be put in place ({error.strerror}): did another export write it at the "
            "same time? What is there was left as it is"
        ) from error
    finally:
        if old.exists() and out.exists():
            shutil.rmtree(old)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, which would end the process on the spot, raise SystemExit as Ctrl-C raises."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with _handled([each for each in _SIGNALS if signal.getsignal(each) == signal.SIG_DFL], leave):
        yield


@contextmanager
def signals_wait() -> Iterator[list[int]]:
    """Hold back what would interrupt the block until it is through; the signals that wait, as they come."""
    waiting: list[int] = []
    ignored = (signal.SIG_IGN, None)  # and stay so
    with _handled(
        [each for each in _SIGNALS if signal.getsignal(each) not in ignored],
        lambda number, frame: waiting.append(number),
    ):
        yield waiting
    if waiting:
        signal.raise_signal(waiting[0])


@contextmanager
def _handled(numbers: list[int], handler: Any) -> Iterator[None]:
    """`handler` for the signals `numbers`; only the main thread may set one, others go without."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
