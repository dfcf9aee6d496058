"""Where galip keeps what it can make again, and whether what lies there can be trusted.

What is kept decides what is not checked again, so it has to be this user's own: a folder of another user, or
one that others may write to, is not used. A cache is a help, and without one everything works but is slower.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path

from galip_runtime.errors import UsageError

__all__ = ["cache_folder", "log_not_kept", "optional_cache"]

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
        log_not_kept(error)
        return None


def log_not_kept(why: UsageError) -> None:
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
