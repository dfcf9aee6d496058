"""What the commands of the runtime, `python -m galip_runtime` and its packages, have in common."""

import argparse
from typing import NoReturn

from galip_runtime import console
from galip_runtime.errors import UsageError

__all__ = ["INTERRUPTED", "Parser"]

INTERRUPTED = 130
"""The exit code of a command that was stopped at once, as shells have it for Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """A parser that prints its errors escaped."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to stderr, and exit with UsageError's code."""
        console.message(*self.format_usage().splitlines(), f"error: {message}")
        raise SystemExit(UsageError.exit_code)
