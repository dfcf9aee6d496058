"""Every error that galip raises on purpose, and the exit code that a command ends with.

    GalipError                      exit code 1   base; raised itself for what no other fits
    ├── UsageError (ValueError)     exit code 2   an argument, value, shape or prompt that cannot be used
    ├── QualityGateFailed           exit code 3   a result is not as good as it has to be
    ├── FileRefused                 exit code 4   a file is missing, broken, altered, unsafe or foreign
    └── ProviderUnavailable         exit code 5   the device or provider asked for is not to be had here

A message says what was wrong, what would have been right, and what to do.
"""

__all__ = ["FileRefused", "GalipError", "ProviderUnavailable", "QualityGateFailed", "UsageError"]


class GalipError(Exception):
    """Base of all errors raised on purpose; `str(error)` is meant to be read by a user.

    The first argument is the message, further ones are details that each have a line of their own.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))


class UsageError(GalipError, ValueError):
    """An argument, value, shape or prompt cannot be used."""

    exit_code = 2


class QualityGateFailed(GalipError):
    """Parity or picture quality is below the bar: numbers that are not finite, or too far from the model."""

    exit_code = 3


class FileRefused(GalipError):
    """A file or folder is missing, broken, altered, unsafe or of another kind."""

    exit_code = 4


class ProviderUnavailable(GalipError):
    """The device, provider or the package that brings it is not available on this machine."""

    exit_code = 5
