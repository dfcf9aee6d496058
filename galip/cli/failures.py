"""Any exception as the error that a user reads, with its exit code."""

from __future__ import annotations

import os

import typer.exceptions
from galip_runtime.errors import GalipError, UsageError

__all__ = ["as_galip_error"]


def as_galip_error(error: Exception) -> GalipError:
    """Return the error to show for `error`: itself if galip raised it on purpose."""
    if isinstance(error, GalipError):
        return error
    if isinstance(error, typer.exceptions.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "galip")
        return UsageError(f"{error.format_message().rstrip('.')}. See {command} --help.")
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        # The system refused a path that the user named, where no command expected it
        path = os.fsdecode(error.filename)
        return UsageError(f"cannot use {path} ({error.strerror}); check its name and permissions")
    if isinstance(error, MemoryError):
        return UsageError("out of memory; ask for fewer pictures at a time, or smaller ones")
    advice = "run it again with --debug to see where it happened, and report it"
    return GalipError(f"unexpected: {type(error).__name__}: {error}", advice)
