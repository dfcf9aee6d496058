"""Where galip keeps what it can make again, and whether what lies there can be trusted.

What is cached decides what is not checked again, so it has to be this user's own: a folder of another user,
or one that others may write to, is not used. A cache is a help, and without one everything works but is
slower.

A cached file is a head of `HEADER_SIZE` bytes, which has the sha256 of the rest, and the rest.
"""

import contextlib
import hashlib
import logging
import os
import stat
from io import BufferedReader
from pathlib import Path

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import staged_file

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
"""why something was not kept, so far"""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(name: str = "") -> Path:
    """Return the folder `name` of galip's cache, or the cache itself. It is made if it is missing.

    The cache is `$GALIP_CACHE`, else `galip` under `$XDG_CACHE_HOME` or `~/.cache`.

    Raises UsageError, which says why, if there is none that belongs to this user alone.
    """
    try:
        home = _home()
        folder = home / name
        why = _replaceable(folder)
        if why is None:
            for path in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
                path.mkdir(mode=0o700, exist_ok=True)
            why = _foreign(home) or _foreign(folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = f"the cache folder cannot be used ({error!s:.500})"
    if why:
        raise UsageError(f"{why}; set GALIP_CACHE to a folder of yours that nobody else may write to")
    return folder


def optional_cache(name: str) -> Path | None:
    """Return the same as `cache_folder`, or None where there is none, and why is logged."""
    try:
        return cache_folder(name)
    except UsageError as error:
        log_not_cached(error)
        return None


def log_not_cached(why: UsageError) -> None:
    """Log why something is not kept: the first time in a process as a warning, which is enough."""
    _log.log(logging.INFO if _reasons else logging.WARNING, "nothing is kept for the next time: %s", why)
    _reasons.add(str(why))


def _home() -> Path:
    """Raises OSError where the user has no home to keep it in."""
    if own := os.environ.get("GALIP_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(own)))
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "")
    if not os.path.isabs(base):  # the standard says to pass over a relative one
        user = os.path.expanduser("~")
        if not os.path.isabs(user) or not os.path.isdir(user):
            raise FileNotFoundError("there is no home folder to keep a cache in")
        base = os.path.join(user, ".cache")
    return Path(base) / "galip"


def _replaceable(folder: Path) -> str | None:
    """Why anybody could put another folder in the place of `folder`, which may be missing; or None."""
    for parent in Path(os.path.realpath(folder)).parents if hasattr(os, "geteuid") else ():
        with contextlib.suppress(FileNotFoundError):
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"everybody may write to {parent}, so to what is in {folder}"
    return None


def _foreign(folder: Path) -> str | None:
    """Why another user may have put something into `folder`; None where only this user could."""
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is not a folder"
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are that user's alone unless shared on purpose
        return None
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if status.st_mode & _OTHERS_WRITE:
        return f"others may write to {folder} (chmod go-w would end that)"
    return None


HEADER_SIZE = 4096
"""bytes before what was kept: a page, so that the rest can be mapped"""

_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
    _FLAGS |= getattr(os, _name, 0)


def open_own(path: Path) -> BufferedReader | None:
    """Open the file at `path` for reading; None if there is none.

    Raises FileRefused if it cannot be read or may be another's: it has to be a regular file, no link, of this
    user, that nobody else may write to.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:  # ELOOP: a link
        raise FileRefused(f"{path} cannot be read ({error.strerror})") from error
    status = os.fstat(descriptor)
    own = not hasattr(os, "geteuid") or (
        status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
    if not own or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileRefused(f"{path} is not a file that this user alone may write to")
    return os.fdopen(descriptor, "rb")


def open_cached(path: Path) -> BufferedReader | None:
    """Open what `write_cached` wrote to `path`, at the first byte after the head; None if there is none.

    One that is damaged or not this user's own is removed, and logged.
    """
    try:
        file = open_own(path)
        if file is None or _is_whole(file):
            return file
        file.close()
        why = f"{path} is damaged"
    except (FileRefused, OSError) as error:
        why = str(error)
    _log.warning("%s: it is not used and made anew", why)
    with contextlib.suppress(OSError):  # a folder, or mapped by another process (Windows)
        path.unlink()
    return None


def write_cached(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all. Where that fails, it is logged."""
    try:
        with staged_file(path) as temporary, open(temporary, "xb", opener=_for_this_user) as file:
            file.write(_head(hashlib.sha256(data).hexdigest()))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except UsageError as error:  # a full disk, a read-only folder: it works all the same
        log_not_cached(error)


def _for_this_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_whole(file: BufferedReader) -> bool:
    """Whether the head's sha256 is that of the rest. Leaves `file` after the head."""
    head = file.read(HEADER_SIZE)
    whole = head == _head(hashlib.file_digest(file, "sha256").hexdigest())
    file.seek(HEADER_SIZE)
    return whole


def _head(sha256: str) -> bytes:
    return sha256.encode().ljust(HEADER_SIZE, b"\n")
