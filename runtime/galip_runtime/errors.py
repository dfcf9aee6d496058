"""The errors that galip raises on purpose, and the exit codes that commands end with.

    GalipError                      exit code 1   base; raised itself if no other fits
    ├── UsageError (ValueError)     exit code 2   an argument, value, shape or prompt cannot be used
    ├── QualityGateFailed           exit code 3   a result is not good enough
    ├── FileRefused                 exit code 4   a file is missing, broken, altered, unsafe or foreign
    ├── ProviderUnavailable         exit code 5   the requested device or provider is not available here
    └── ServiceUnavailable          exit code 5   a queue is full, or a service is not there or not ready
        └── DeadlineExceeded (TimeoutError)
                                    exit code 5   the deadline passed before the picture was there

A message says what is wrong, what would be right, and what to do about it.
"""

__all__ = [
    "DeadlineExceeded",
    "FileRefused",
    "GalipError",
    "ProviderUnavailable",
    "QualityGateFailed",
    "ServiceUnavailable",
    "UsageError",
]


class GalipError(Exception):
    """Base of all errors raised on purpose; `str(error)` is written for the user.

    The first argument is the message; further arguments are details, each on its own line.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))


class UsageError(GalipError, ValueError):
    """An argument, value, shape or prompt that cannot be used."""

    exit_code = 2


class QualityGateFailed(GalipError):
    """Parity or picture quality below the bar: numbers that are not finite, or too far from the model's."""

    exit_code = 3


class FileRefused(GalipError):
    """A file or folder that is missing, broken, altered, unsafe or of another kind."""

    exit_code = 4


class ProviderUnavailable(GalipError):
    """A device, a provider or its package that is not available on this machine."""

    exit_code = 5


class ServiceUnavailable(GalipError):
    """A queue that is full, or a service that does not answer or is not ready: try again later."""

    exit_code = 5

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        """`retry_after`: seconds until it is worth trying again; None if that is not known."""
        super().__init__(*args)
        self.retry_after = retry_after


class DeadlineExceeded(ServiceUnavailable, TimeoutError):
    """A deadline that passed before the picture was there."""
