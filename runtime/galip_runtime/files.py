"""Reading and writing files safely: never half-written, never a hang, never more than expected.

A file or folder is made inside a *staging folder* beside its target and renamed into place. The process that
made a staging folder holds a lock on it, which the system releases when the process ends, however it ends:
`remove_leftovers` deletes those that nobody holds.
"""

import contextlib
import functools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError

try:
    import fcntl
except ImportError:  # Windows: no lock, so nothing is known to be left over and nothing is removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "check_writable",
    "lock_folder",
    "open_regular",
    "read_regular",
    "remove_leftovers",
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


def open_regular(path: StrPath, limit: int | None = None) -> BufferedReader:
    """Open the regular file at `path` for reading; a pipe or a device neither blocks nor is read.

    `limit`: the most bytes it may have. Raises FileRefused if it is missing, unreadable, not a regular file,
    or larger than `limit`.
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
                f"{os.fspath(path)} has {status.st_size:,} bytes; at most {limit:,} are read, so this is "
                "probably another kind of file"
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: StrPath, limit: int) -> bytes:
    """Return the bytes of the regular file at `path`, at most `limit`. Raises as `open_regular`."""
    with open_regular(path, limit) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise FileRefused(f"{os.fspath(path)} cannot be read ({_reason(error)})") from error
    if len(data) > limit:  # it grew after it was opened
        raise FileRefused(f"{os.fspath(path)} has more than {limit:,} bytes")
    return data


def check_writable(path: StrPath) -> None:
    """Raise UsageError if `write_atomically` could not put a file at `path`. Ask before an hour's work."""
    target = Path(path)
    try:
        _check_replaceable(target)
        parent = _resolved(target).parent
        if not parent.is_dir():
            raise UsageError(f"the folder {parent} does not exist; make it first or name another")
        with staging_folder(parent):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{target} cannot be written ({_reason(error)}); name another file") from error


def write_atomically(path: StrPath, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises UsageError if that fails.

    A link at `path` stays: the file it leads to is replaced.
    """
    with staged_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def staged_file(path: StrPath) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, what was written replaces the file at `path`.

    If the block raises, `path` is as it was. An OSError from the block, or from putting the file in place, is
    raised as UsageError. A link at `path` stays: the file it leads to is replaced.
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
            f"{os.fspath(path)} cannot be written ({_reason(error)}); name another place, or make room"
        ) from error


@contextmanager
def staging_folder(parent: StrPath) -> Iterator[Path]:
    """Yield a new folder in `parent`, removed with all that is in it when the block ends.

    It may be renamed away within the block. `remove_leftovers` leaves it alone while this process runs.
    Raises OSError if it cannot be made.
    """
    folder, lock = _locked_folder(Path(parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(parent: StrPath) -> None:
    """Delete the staging folders in `parent` whose process has ended. One that cannot be deleted is left."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        names = [entry.name for entry in entries if _STAGING.fullmatch(entry.name)]
        for name in names:
            folder = os.path.join(parent, name)
            with contextlib.suppress(OSError):  # another process removed it, or it is somebody else's
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)


@functools.lru_cache(maxsize=256)
def _remove_leftovers_once(parent: Path) -> None:
    """`remove_leftovers`, once a folder and process: a folder of many pictures takes long to list."""
    remove_leftovers(parent)


def lock_folder(folder: StrPath) -> int | None:
    """Lock `folder` until the descriptor that is returned is closed, or the process ends.

    None where there are no locks. Raises BlockingIOError if somebody holds it, OSError if it cannot open.
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
    """A new folder in `parent` and the descriptor that keeps it locked; None where there are no locks."""
    while True:
        folder = parent / f".galip-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o777)
        if fcntl is None:
            return folder, None
        try:
            lock = lock_folder(folder)
        except (FileNotFoundError, BlockingIOError):  # another process takes it for a leftover
            continue
        if folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _check_replaceable(target: Path) -> None:
    """Raise UsageError for a folder, a pipe or a device: root could put a file in a device's place.

    Raises OSError for a name that cannot be; not Path.is_dir, which takes one that is too long for free.
    """
    with contextlib.suppress(FileNotFoundError):
        kind = stat.S_IFMT(os.stat(target).st_mode)
        if kind != stat.S_IFREG:
            raise UsageError(f"{target} is {_KINDS.get(kind, 'no file')}; name a file to write")


def _resolved(path: StrPath) -> Path:
    """Where `path` leads if it is a link, otherwise `path`."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
