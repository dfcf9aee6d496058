"""The cache of verified hashes: a graph is hashed when it is first loaded and whenever it has changed.

An entry is an empty file of this user's own. Its name is a hash of everything that would reveal a change:
the graph's path, its `file_signature` and its sha256.
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

_MAX_ENTRIES = 1000
_MIN_AGE = 2  # seconds: a file changed twice within one tick of the clock may keep its signature


class HashCache:
    """A folder of entries, as `optional_cache` returns it; with None, nothing is stored."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def has(self, path: Path, signature: tuple[int, ...], sha256: str) -> bool:
        """Return whether the file at `path`, with this `signature`, was verified to have this sha256."""
        if self._folder is None:
            return False
        try:
            entry = open_own(self._folder / _name(path, signature, sha256))
        except FileRefused as error:
            _log.warning("%s: %s is hashed again", error, path)
            return False
        if entry is None:
            return False
        entry.close()
        return True

    def add(self, path: Path, signature: tuple[int, ...], sha256: str) -> None:
        """Record that the file at `path` has this sha256, with `signature` before and after hashing it."""
        modified = max(signature[-2:]) / 1e9
        if self._folder is None or time.time() - modified < _MIN_AGE:
            return
        try:
            entry = self._folder / _name(path, signature, sha256)
            entry.unlink(missing_ok=True)  # if there is one, another user may own it
            os.close(os.open(entry, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._make_room(self._folder)
        except FileExistsError:  # another process was faster
            pass
        except OSError as error:  # a full disk or a read-only folder: the file is hashed again next time
            _log.info("%s cannot record that %s was verified: %s", self._folder, path, error)

    def _make_room(self, folder: Path) -> None:
        """Remove all but the newest entries."""
        entries = list(folder.iterdir())
        if len(entries) > _MAX_ENTRIES:
            for entry in sorted(entries, key=_modified)[:-_MAX_ENTRIES]:
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    entry.unlink()


def _name(path: Path, signature: tuple[int, ...], sha256: str) -> str:
    return hashlib.sha256(
        repr((str(path.resolve()), signature, sha256)).encode("utf-8", "surrogateescape")
    ).hexdigest()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
