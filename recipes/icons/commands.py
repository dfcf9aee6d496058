"""How the recipe's commands fail."""

from collections.abc import Iterator
from contextlib import contextmanager

from galip_runtime import console
from galip_runtime.errors import GalipError

__all__ = ["exit_on_error"]


@contextmanager
def exit_on_error(command: str) -> Iterator[None]:
    """Report a `GalipError` of the block as `galip` does, and exit with its code."""
    try:
        yield
    except GalipError as error:
        console.failure(command, error)
        raise SystemExit(error.exit_code) from None
