"""The cache folder, and the check that its contents can be trusted.

A cached result replaces a check, so the cache has to belong to this user alone: a folder that another user
owns or may write to is not used. The cache is optional: without it everything works, only slower.

A cached file is a header of `HEADER_SIZE` bytes with the sha256 of the data, then the data.
"""

import contextlib
import hashlib
import logging
import os
import stat
from io import BufferedReader
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import sha256_rest, staged_file

__all__ = [
    "HEADER_SIZE",
    "cache_folder",
    "log_not_cached",
    "open_cached",
    "open_own",
    "optional_cache",
    "write_cached",
]

_log = logging.getLogger("galip_runtime")

_reasons = set[str]()
"""the reasons logged so far for not caching something"""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(name: str = "") -> Path:
    """Return the folder `name` of galip's cache, or the cache itself, creating it if it is missing.

    The cache is `$GALIP_CACHE`, else `galip` under `$XDG_CACHE_HOME` or `~/.cache`.

    Raises UsageError, with the reason, if no such folder belongs to this user alone.
    """
    try:
        root = _root()
        folder = root / name
        problem = _replaceable(folder)
        if problem is None:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir(mode=0o700, exist_ok=True)
            problem = _foreign(root) or _foreign(folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        problem = f"the cache folder cannot be used ({error!s:.500})"
    if problem:
        raise UsageError(f"{problem}; set GALIP_CACHE to a folder of yours that nobody else may write to")
    return folder


def optional_cache(name: str) -> Path | None:
    """Return `cache_folder(name)`, or None, after logging the reason, if there is none."""
    try:
        return cache_folder(name)
    except UsageError as error:
        log_not_cached(error)
        return None


def log_not_cached(reason: UsageError) -> None:
    """Log why something is not cached: as a warning the first time in a process, afterwards as info."""
    _log.log(logging.INFO if _reasons else logging.WARNING, "nothing is kept for the next run: %s", reason)
    _reasons.add(str(reason))


def _root() -> Path:
    """Return the cache's own folder. Raises OSError if the user has no home folder for it."""
    if configured := os.environ.get("GALIP_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(configured)))
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "")
    if not os.path.isabs(base):  # the XDG specification says to ignore a relative path
        home = os.path.expanduser("~")
        if not os.path.isabs(home) or not os.path.isdir(home):
            raise FileNotFoundError("there is no home folder for a cache")
        base = os.path.join(home, ".cache")
    return Path(base) / "galip"


def _replaceable(folder: Path) -> str | None:
    """Return why anybody could replace `folder`, which need not exist, with another folder; or None."""
    for parent in Path(os.path.realpath(folder)).parents if hasattr(os, "geteuid") else ():
        with contextlib.suppress(FileNotFoundError):
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"anybody may write to {parent} and so replace {folder}"
    return None


def _foreign(folder: Path) -> str | None:
    """Return why another user may have put something into `folder`; None if only this user could."""
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is not a folder"
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are private unless shared on purpose
        return None
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if status.st_mode & _OTHERS_WRITE:
        return f"others may write to {folder} (chmod go-w would stop that)"
    return None


HEADER_SIZE = 4096
"""bytes before the data: a page, so that the data can be memory-mapped"""

_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
    _FLAGS |= getattr(os, _name, 0)


def open_own(path: Path) -> BufferedReader | None:
    """Open the file at `path` for reading; return None if there is none.

    Raises FileRefused if it cannot be read, or unless it is a regular file (no link) that belongs to this
    user and that nobody else may write to.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:  # ELOOP: a link
        raise FileRefused(f"{path} cannot be read ({error.strerror})") from error
    status = os.fstat(descriptor)
    is_own = not hasattr(os, "geteuid") or (
        status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
    )
    if not is_own or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileRefused(f"{path} is not a file that this user alone may write to")
    return os.fdopen(descriptor, "rb")


def open_cached(path: Path) -> BufferedReader | None:
    """Open what `write_cached` wrote to `path`, at the first byte of the data; None if there is no file.

    A file that is damaged or not this user's own is logged and removed.
    """
    try:
        file = open_own(path)
        if file is None or _is_whole(file):
            return file
        file.close()
        problem = f"{path} is damaged"
    except (FileRefused, OSError) as error:
        problem = str(error)
    _log.warning("%s: it will be rebuilt", problem)
    with contextlib.suppress(OSError):  # it is a folder, or another process maps it (Windows)
        path.unlink()
    return None


def write_cached(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all. A failure is only logged."""
    try:
        with staged_file(path) as temporary, open(temporary, "xb", opener=_for_this_user) as file:
            file.write(_header(hashlib.sha256(data).hexdigest()))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except UsageError as error:  # a full disk or a read-only folder: we can do without the cache
        log_not_cached(error)


def _for_this_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # the cache must be unreadable to others


def _is_whole(file: BufferedReader) -> bool:
    """Return whether the header has the sha256 of the data. Leaves `file` at the data."""
    header = file.read(HEADER_SIZE)
    is_whole = header == _header(sha256_rest(file))
    file.seek(HEADER_SIZE)
    return is_whole


def _header(sha256: str) -> bytes:
    return sha256.encode().ljust(HEADER_SIZE, b"\n")
