"""The `galip` command. A command parses, calls one public function, and turns errors into an exit code.

Nothing heavy is imported before a command needs it: `galip --help` answers in under 0.3 s.
"""

from galip.cli.app import main

__all__ = ["main"]
