"""Safe reading and writing of files: nothing half-written, no hang, no more bytes than expected.

A file or folder is built inside a *staging folder* next to its target and then renamed into place. The
process that created a staging folder holds a lock on it, which the system releases however the process ends:
`remove_leftovers` deletes the staging folders that nobody locks.
"""

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError

try:
    import fcntl
except ImportError:  # Windows: without locks we can't know what is left over, so we remove nothing
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "check_writable",
    "lock_folder",
    "open_regular",
    "read_regular",
    "remove_leftovers",
    "sha256_file",
    "sha256_rest",
    "staged_file",
    "staging_folder",
    "write_atomically",
]

StrPath = str | os.PathLike[str]

_STAGING = re.compile(r"\.galip-[0-9a-f]{12}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 2**20  # bytes hashed at a time


def open_regular(path: StrPath, limit: int | None = None) -> BufferedReader:
    """Open the regular file at `path` for reading, without blocking on or reading a pipe or a device.

    Raises FileRefused if it is missing, unreadable, not a regular file, or larger than `limit` bytes.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FileRefused(f"{os.fspath(path)} cannot be read ({_reason(error)})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise FileRefused(f"{os.fspath(path)} is {kind}, not a regular file")
        if limit is not None and status.st_size > limit:
            raise FileRefused(
                f"{os.fspath(path)} has {status.st_size:,} bytes; at most {limit:,} are allowed, so it is "
                "probably another kind of file"
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: StrPath, limit: int) -> bytes:
    """Return the bytes of the regular file at `path`, at most `limit`. Raises like `open_regular`."""
    with open_regular(path, limit) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise FileRefused(f"{os.fspath(path)} cannot be read ({_reason(error)})") from error
    if len(data) > limit:  # it grew after it was opened
        raise FileRefused(f"{os.fspath(path)} has more than {limit:,} bytes")
    return data


def sha256_file(path: StrPath) -> str:
    """Return the file's sha256 as 64 hexadecimal digits, reading it in blocks."""
    with open(path, "rb") as file:
        return sha256_rest(file)


def sha256_rest(file: BufferedReader, size: int = sys.maxsize) -> str:
    """Return the sha256 of the rest of `file`, or of its next `size` bytes: then it ends even if it grows."""
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def check_writable(path: StrPath) -> None:
    """Raise UsageError if `write_atomically` could not write to `path`. Call it before an hour's work."""
    target = Path(path)
    try:
        _check_replaceable(target)
        parent = _resolved(target).parent
        if not parent.is_dir():
            raise UsageError(f"the folder {parent} does not exist; create it first or name another")
        with staging_folder(parent):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{target} cannot be written ({_reason(error)}); name another file") from error


def write_atomically(path: StrPath, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises UsageError if that fails.

    If `path` is a link, the file it points to is replaced.
    """
    with staged_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def staged_file(path: StrPath) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, the file written there replaces the one at `path`.

    If the block raises, `path` stays as it was. An OSError from the block, or from moving the file into
    place, is raised as UsageError. If `path` is a link, the file it points to is replaced.
    """
    target = _resolved(path)
    try:
        _check_replaceable(target)
        _remove_leftovers_once(target.parent)
        with staging_folder(target.parent) as folder:
            temporary = folder / "file"
            yield temporary
            os.replace(temporary, target)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError) or not (isinstance(error, OSError) or "null byte" in str(error)):
            raise
        raise UsageError(
            f"{os.fspath(path)} cannot be written ({_reason(error)}); name another place, or free some space"
        ) from error


@contextmanager
def staging_folder(parent: StrPath) -> Iterator[Path]:
    """Yield a new folder in `parent`, which is deleted with its contents when the block ends.

    The block may rename it away. `remove_leftovers` leaves it alone while this process runs.
    Raises OSError if it cannot be created.
    """
    folder, lock = _locked_folder(Path(parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(parent: StrPath) -> None:
    """Delete the staging folders in `parent` whose process has ended, as far as they can be deleted."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        names = [entry.name for entry in entries if _STAGING.fullmatch(entry.name)]
        for name in names:
            folder = os.path.join(parent, name)
            with contextlib.suppress(OSError):  # another process removed it, or another user owns it
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)


@functools.lru_cache(maxsize=256)
def _remove_leftovers_once(parent: Path) -> None:
    """Call `remove_leftovers` once per folder and process: listing a folder of many pictures takes long."""
    remove_leftovers(parent)


def lock_folder(folder: StrPath) -> int | None:
    """Lock `folder` until the returned descriptor is closed or the process ends.

    Returns None where there are no locks. Raises BlockingIOError if another process holds the lock, OSError
    if the folder cannot be opened.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise
        return None  # a file system without locks
    return lock


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """Create a folder in `parent`; return it and its lock's descriptor, None where there are no locks."""
    while True:
        folder = parent / f".galip-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o777)
        if fcntl is None:
            return folder, None
        try:
            lock = lock_folder(folder)
        except (FileNotFoundError, BlockingIOError):  # another process mistakes it for a leftover
            continue
        if folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _check_replaceable(target: Path) -> None:
    """Raise UsageError for a folder, a pipe or a device: root could replace a device with a file.

    Raises OSError for an impossible name; Path.is_dir would return False for one that is too long.
    """
    with contextlib.suppress(FileNotFoundError):
        kind = stat.S_IFMT(os.stat(target).st_mode)
        if kind != stat.S_IFREG:
            raise UsageError(f"{target} is {_KINDS.get(kind, 'not a file')}; name a file to write")


def _resolved(path: StrPath) -> Path:
    """Return the file that `path` points to if it is a link, otherwise `path`."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
