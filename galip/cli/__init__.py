"""The `galip` command, one module per subcommand.

A command parses, calls one public function, and turns errors into an exit code. Anything heavy is imported
inside the command that needs it: `galip --help` answers in under 0.3 s.
"""

from galip.cli.app import main

__all__ = ["main"]
