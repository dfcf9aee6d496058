"""Where galip keeps what it can make again."""

import os
from pathlib import Path

__all__ = ["cache_home"]


def cache_home() -> Path:
    """`$GALIP_CACHE`, or `galip` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("GALIP_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galip"
