"""Staging: a folder that appears whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import remove_leftovers, staging_folder

from galip_export.signals import signals_raise, signals_wait

try:
    import fcntl
except ImportError:  # Windows, where a folder that a process reads from cannot be replaced anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_target", "list_files", "replace_folder", "staged_bundle", "write"]

_STAGING = re.compile(r"\.galip-[0-9a-f]{12}")
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS"""
_AT_FDCWD = -100


@contextmanager
def staged_bundle(out: Path, *, overwrite: bool, size: int) -> Iterator[Path]:
    """Yield a new folder to fill: it becomes `out` when the block ends, and is removed when the block raises.

    `size`: bytes that it will take. With `overwrite`, it replaces a bundle or an empty folder.

    The old or the new bundle is in place at every moment, even if the process is killed, and the next export
    removes what a killed process left. Where the system cannot swap two folders, the old bundle is set aside
    for a moment, and the next export puts it back. Where `out` itself cannot be renamed, because it is a
    mount point or the folder above is read-only, its files are replaced one by one: a process that is killed
    during these few renames leaves a folder that `load` refuses and that `overwrite` replaces.

    SIGTERM and SIGHUP end the block too, as `SystemExit`.

    Raises UsageError if `out` exists and must not be replaced, or cannot be written; before the block runs,
    if that can be known.
    """
    out = Path(os.path.abspath(out))
    created: list[Path] = []
    with signals_raise():
        try:
            parent = _prepared(out, overwrite, created)
            with _staging(parent, out) as staging:
                _check_room(staging, size)
                yield staging
                with signals_wait():
                    _publish(staging, out, overwrite)
        except BaseException:
            with signals_wait(), suppress(OSError):  # not empty: another export's bundle lies there
                for folder in reversed(created):
                    folder.rmdir()
            raise


def write(path: Path, data: bytes) -> None:
    """Write a file of the bundle. Raises UsageError where the disk is full or the folder refuses it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"cannot write {len(data):,} bytes to {path.parent}: {error.strerror}; "
            "make room or choose another folder"
        ) from error


def _prepared(out: Path, overwrite: bool, created: list[Path]) -> Path:
    """Check `out`, create the folders above it, list them in `created`, and return where to stage."""
    try:
        _restore(out)
        check_target(out, overwrite)
        for folder in [parent for parent in out.parents if not parent.exists()][::-1]:
            folder.mkdir()
            created.append(folder)
        if out.is_dir():
            remove_leftovers(out)
        remove_leftovers(out.parent)
        return out if out.is_dir() and not _is_renamable(out) else out.parent
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder you may write to") from error


@contextmanager
def _staging(parent: Path, out: Path) -> Iterator[Path]:
    """Yield `staging_folder(parent)`. Raises UsageError where it cannot be created."""
    folder = staging_folder(parent)
    try:
        staging = folder.__enter__()
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder you may write to") from error
    try:
        yield staging
    finally:
        with signals_wait():
            folder.__exit__(None, None, None)


def _is_renamable(out: Path) -> bool:
    """Return whether a folder beside `out` can take its place.

    The folder above has to be writable, and `out` must not be a mount point. Only a rename tells: a folder
    mounted from the same file system looks like any other.
    """
    with suppress(OSError):
        if os.path.samefile(out, os.curdir):  # the shell would be left in a folder that is gone
            return False
    with ExitStack() as stack:
        try:
            beside = stack.enter_context(staging_folder(out.parent))
        except OSError:
            return False
        try:
            within = stack.enter_context(staging_folder(out))
        except OSError:  # its files cannot be replaced, so it has to be replaced itself
            return True
        try:
            (beside / "probe").touch()
            os.replace(beside / "probe", within / "probe")
        except OSError:
            return False
        return True


def _check_room(staging: Path, size: int) -> None:
    free = shutil.disk_usage(staging).free
    if free < size:
        raise UsageError(
            f"{staging.parent} has {free / 1e6:,.0f} MB free and the bundle needs about "
            f"{size / 1e6:,.0f} MB; make room or choose another folder"
        )


def check_target(out: Path, overwrite: bool) -> None:
    """Raise UsageError unless `out` is free, or can be replaced without losing anybody's files.

    Raises OSError if `out` cannot be listed.
    """
    if out.is_symlink():
        raise UsageError(f"{out} is a link; name the folder itself")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, and a bundle is a folder; choose another name")
    if not overwrite:
        raise UsageError(f"{out} exists already; choose another name, or allow overwriting (--overwrite)")
    files = list_files(out)
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


def list_files(folder: Path) -> set[str]:
    """Return the files and links in `folder`, by their paths in it, without those in staging folders.

    Raises OSError for a folder that cannot be listed: what nobody lists would be lost.
    """
    files = set()
    for root, folders, names in os.walk(folder, onerror=_raise):
        if Path(root) == folder:
            folders[:] = [name for name in folders if not _STAGING.fullmatch(name)]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        files |= {(Path(root) / name).relative_to(folder).as_posix() for name in (*names, *links)}
    return files


def _raise(error: OSError) -> None:
    raise error


def _publish(staging: Path, out: Path, overwrite: bool) -> None:
    """Put `staging` in the place of `out`, as a whole if the system lets it be renamed."""
    try:
        check_target(out, overwrite)  # again: minutes have passed
        if staging.parent == out:
            _replace_files(staging, out, overwrite)
        elif not overwrite or not out.exists() or not list_files(out):
            os.rename(staging, out)  # fails where another export has put a bundle there meanwhile
        else:
            replace_folder(staging, out)
    except OSError as error:
        raise UsageError(
            f"{out} could not be put in place ({error.strerror}): did another export write it at the "
            "same time? What is there was left as it is"
        ) from error


def replace_folder(new: Path, out: Path) -> None:
    """Put the folder `new` in the place of the folder `out`, in one step where the system can swap them.

    What `out` was is then in `new`, or gone. Raises OSError, and `out` is as it was.
    """
    if not _exchange(new, out):
        _rename_twice(new, out)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step. Returns False where the system or the file system cannot."""
    try:
        libc = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(os.fsencode(one), os.fsencode(other), _EXCHANGE) == 0)
        paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
        return bool(libc.renameat2(*paths, _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows, which has no CDLL(None)
        return False


def _rename_twice(staging: Path, out: Path) -> None:
    """Replace the bundle `out` by `staging`; if the process is killed in between, `_restore` undoes it."""
    old = _set_aside(out)
    os.rename(out, old)
    try:
        os.rename(staging, out)
    finally:
        _restore(out)


def _set_aside(out: Path) -> Path:
    """Return where the old bundle is while the new one takes its place; the name is never too long."""
    return out.with_name(f".galip-replaced-{hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]}")


def _restore(out: Path) -> None:
    """Put back the bundle that was set aside, or delete it if another one is in its place."""
    old = _set_aside(out)
    if old.is_dir():
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, out)


def _replace_files(staging: Path, out: Path, overwrite: bool) -> None:
    """Move the files of `staging` into `out`, in place of those that are there.

    At every moment the manifest in `out` lists all files beside it, so that a later export can replace what a
    killed one leaves: first the old files go, then the new manifest comes, then the other files.
    """
    with _locked(out):
        check_target(out, overwrite)  # another export may have been here while this one waited
        new = list_files(staging)
        stale = list_files(out) - new
        for name in stale:
            (out / name).unlink()
        for folder in {(out / name).parent for name in stale} - {out}:
            with suppress(OSError):  # not empty: it is the new bundle's too
                folder.rmdir()
        for name in sorted(new, key=lambda name: name != MANIFEST_NAME):
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(staging / name, out / name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other exports from replacing files in `folder` meanwhile, if the file system has locks."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
