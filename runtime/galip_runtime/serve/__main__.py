"""The command `python -m galip_runtime.serve [BUNDLE]`, which needs neither galip nor PyTorch."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from galip_runtime import console
from galip_runtime.command_line import INTERRUPTED, Parser
from galip_runtime.errors import GalipError
from galip_runtime.serve.options import BUNDLE, DESCRIPTION, OPTIONS, default_of, flag
from galip_runtime.serve.settings import ServeSettings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    try:
        settings = ServeSettings(**options)
        from galip_runtime.serve.server import run  # --help needs none of it

        return run(settings)
    except GalipError as error:
        console.failure("error", error)
        return error.exit_code
    except KeyboardInterrupt:  # before the service handles it
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m galip_runtime.serve",
        usage="%(prog)s [BUNDLE] [option ...]",
        description=DESCRIPTION,
        epilog="Exit codes: 0 stopped in order, 1 unexpected, 2 usage, 4 a file is refused, 5 the device or "
        "a package is not available, 130 stopped at once.",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", type=Path, help=BUNDLE)
    for name, option in OPTIONS.items():
        default = default_of(name)
        if option.kind is bool:
            parser.add_argument(flag(name), action="store_true", help=option.help)
        elif option.kind is tuple:
            parser.add_argument(
                flag(name), action="append", default=[], metavar=option.metavar, help=option.help
            )
        else:
            shown = "" if default is None else f" ({default:g})" if option.kind is float else f" ({default})"
            parser.add_argument(
                flag(name),
                type=option.kind,
                default=default,
                metavar=option.metavar,
                help=option.help + shown,
            )
    return parser


if __name__ == "__main__":
    sys.exit(console.run(main, "error"))
