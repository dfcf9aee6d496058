"""Any exception as the error that a user reads, with its exit code."""

from __future__ import annotations

import os

import typer.exceptions
from galip_runtime.errors import GalipError, ProviderUnavailable, UsageError
from galip_runtime.install import install_extra

__all__ = ["as_galip_error"]


def as_galip_error(error: Exception) -> GalipError:
    """Return the error to show for `error`: itself if galip raised it on purpose."""
    if isinstance(error, GalipError):
        return error
    if isinstance(error, typer.exceptions.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "galip")
        return UsageError(f"{error.format_message().rstrip('.')}. See {command} --help.")
    if isinstance(error, ModuleNotFoundError) and error.name == "lightning_fabric":
        return ProviderUnavailable(
            f"lightning-fabric is not installed. For training: {install_extra('train', 'galip')}; for "
            f"evaluation: {install_extra('eval', 'galip')}"
        )
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        # The system refused a path that the user named, where no command expected it
        path = os.fsdecode(error.filename)
        return UsageError(f"cannot use {path} ({error.strerror}); check its name and permissions")
    if isinstance(error, MemoryError):
        return UsageError("out of memory; ask for fewer pictures at a time, or smaller ones")
    advice = "run it again with --debug to see where it happened, and report it"
    return GalipError(f"unexpected: {type(error).__name__}: {error}", advice)
