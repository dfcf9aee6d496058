"""Where galip keeps what it can make again, and whether what lies there can be trusted.

What is kept decides what is not checked again, so it has to be this user's own: a folder of another user, or
one that others may write to, is not used. A cache is a help, and without one everything works but is slower.
"""

import functools
import logging
import os
import stat
from pathlib import Path

from galip_runtime.errors import UsageError

__all__ = ["cache_folder", "optional_cache"]

_log = logging.getLogger("galip_runtime")

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(name: str = "") -> Path:
    """Return the folder `name` of galip's cache, or the cache itself. It is made if it is missing.

    The cache is `$GALIP_CACHE`, else `galip` under `$XDG_CACHE_HOME` or `~/.cache`.

    Raises UsageError, which says why, if there is none that belongs to this user alone.
    """
    try:
        home = _home()
        folder = home / name
        for path in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            path.mkdir(mode=0o700, exist_ok=True)
        why = _why_not(home) or _why_not(folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = f"the cache folder cannot be used ({error!s:.500})"
    if why:
        raise UsageError(f"{why}; set GALIP_CACHE to a folder of yours that nobody else may write to")
    return folder


def optional_cache(name: str) -> Path | None:
    """Return the same as `cache_folder`, or None where there is none: the reason is logged once."""
    try:
        return cache_folder(name)
    except UsageError as error:
        _warn_once(str(error))
        return None


@functools.lru_cache(maxsize=16)
def _warn_once(why: str) -> None:
    _log.warning("nothing is kept for the next time: %s", why)


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


def _why_not(folder: Path) -> str | None:
    """Why others may have put something into `folder`; None where only this user could."""
    real = Path(os.path.realpath(folder))
    status = real.stat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{real} is not a folder"
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are that user's alone unless shared on purpose
        return None
    if status.st_uid != os.geteuid():
        return f"{real} belongs to another user"
    if status.st_mode & _OTHERS_WRITE:
        return f"others may write to {real} (chmod go-w would end that)"
    for parent in real.parents:  # who may rename the folder can put another in its place
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody may write to {parent}, so to what is in {real}"
    return None
