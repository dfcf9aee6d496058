"""Which files were hashed before: a graph is when it is first loaded, and whenever it has changed since.

What is kept is an empty file of this user's own, its name the hash of all that tells a change: where the
graph lies, its `file_signature` and the sha256 that it had.
"""

import contextlib
import hashlib
import logging
import os
import time
from pathlib import Path

from galip_runtime.cache import open_own
from galip_runtime.errors import FileRefused

__all__ = ["HashCache"]

_log = logging.getLogger("galip_runtime")

_KEPT = 1000
_SETTLED = 2  # seconds: a file changed twice within a clock's tick may have the same signature


class HashCache:
    """A folder of what was verified, as `optional_cache` gives it; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def has(self, path: Path, signature: tuple[int, ...], sha256: str) -> bool:
        """Whether the file at `path`, unchanged by its `signature`, was found to have this sha256."""
        if self._folder is None:
            return False
        try:
            marker = open_own(self._folder / _name(path, signature, sha256))
        except FileRefused as error:
            _log.warning("%s: %s is hashed again", error, path)
            return False
        if marker is None:
            return False
        marker.close()
        return True

    def add(self, path: Path, signature: tuple[int, ...], sha256: str) -> None:
        """The file at `path` has this sha256, and had `signature` before and after it was hashed."""
        changed = max(signature[-2:]) / 1e9
        if self._folder is None or time.time() - changed < _SETTLED:
            return
        try:
            marker = self._folder / _name(path, signature, sha256)
            marker.unlink(missing_ok=True)  # somebody else's, if there is one
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._make_room(self._folder)
        except FileExistsError:  # another process was faster
            pass
        except OSError as error:  # a full disk, a read-only folder: it is hashed again the next time
            _log.info("%s cannot keep that %s was verified: %s", self._folder, path, error)

    def _make_room(self, folder: Path) -> None:
        """Remove all but the newest."""
        found = list(folder.iterdir())
        if len(found) > _KEPT:
            for old in sorted(found, key=_age)[:-_KEPT]:
                with contextlib.suppress(FileNotFoundError):  # another process has removed it
                    old.unlink()


def _name(path: Path, signature: tuple[int, ...], sha256: str) -> str:
    return hashlib.sha256(
        repr((str(path.resolve()), signature, sha256)).encode("utf-8", "surrogateescape")
    ).hexdigest()


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
