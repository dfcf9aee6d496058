"""TensorRT's timing cache: how fast each kernel was, so that later builds need not measure it again."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular, write_atomically

__all__ = ["TimingCache"]

_log = logging.getLogger("galip_export")

_MAX_BYTES = 2**28


class TimingCache:
    """A file beside the bundle at `out`, `<its name>.timing`; it may be deleted at any time.

    TensorRT itself refuses times of another version or GPU. It measures again, and the file is replaced.
    """

    def __init__(self, out: Path) -> None:
        self.path = Path(f"{os.path.abspath(out)}.timing")
        self._data = b""

    def load_into(self, config: Any) -> None:
        """Let the builder that `config` is for use the known times."""
        if not self._data:
            self._data = self._read()
        known = config.create_timing_cache(self._data) if self._data else None
        if known is None or not config.set_timing_cache(known, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def _read(self) -> bytes:
        if not os.path.lexists(self.path):
            return b""
        try:
            return read_regular(self.path, _MAX_BYTES)
        except FileRefused as error:  # kernels are timed all the same
            _log.warning("the timing cache %s cannot be read: %s", self.path, error)
            return b""

    def save_from(self, config: Any) -> None:
        """Save what the builder that `config` was for has measured."""
        data = bytes(config.get_timing_cache().serialize())
        if data == self._data:
            return
        self._data = data
        try:
            write_atomically(self.path, data)
        except UsageError as error:  # the engines are built all the same
            _log.warning("the timing cache %s cannot be written: %s", self.path, error)
