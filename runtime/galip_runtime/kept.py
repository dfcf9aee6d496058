"""Files of a cache: read only if they are this user's own and whole.

A kept file is a head of `HEAD` bytes, which has the sha256 of the rest, and the rest.
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
from galip_runtime.folders import log_not_kept

__all__ = ["HEAD", "keep", "open_kept", "open_own"]

_log = logging.getLogger("galip_runtime")

HEAD = 4096
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


def open_kept(path: Path) -> BufferedReader | None:
    """Open what `keep` wrote to `path`, at the first byte after the head; None if there is none.

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


def keep(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all. Where that fails, it is logged."""
    try:
        with staged_file(path) as temporary, open(temporary, "xb", opener=_for_this_user) as file:
            file.write(_head(hashlib.sha256(data).hexdigest()))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except UsageError as error:  # a full disk, a read-only folder: it works all the same
        log_not_kept(error)


def _for_this_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_whole(file: BufferedReader) -> bool:
    """Whether the head's sha256 is that of the rest. Leaves `file` after the head."""
    head = file.read(HEAD)
    whole = head == _head(hashlib.file_digest(file, "sha256").hexdigest())
    file.seek(HEAD)
    return whole


def _head(sha256: str) -> bytes:
    return sha256.encode().ljust(HEAD, b"\n")
