"""The names of the exporter's rewrites, for those who check one without PyTorch."""

from __future__ import annotations

from galip_runtime.errors import UsageError

__all__ = ["REWRITES", "check_rewrites"]

REWRITES = ("exact", "none")
"""the choices: every rewrite of `galip_export.rewrites`, or the generator as it is"""


def check_rewrites(rewrites: str) -> str:
    """Return `rewrites`. Raises UsageError where it is not one of `REWRITES`."""
    if rewrites not in REWRITES:
        raise UsageError(f"rewrites are {rewrites!r}; there are: {', '.join(REWRITES)}")
    return rewrites
