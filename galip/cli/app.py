"""The command's tree, its errors and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from functools import partial
from typing import Annotated

import typer
import typer.exceptions
from galip_runtime import console
from galip_runtime.errors import GalipError, UsageError

from galip.cli import benching, data, doctor, evaluating, exporting, pictures, training

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 done, 1 unexpected, 2 usage, 3 parity or quality gate failed, "
    "4 file refused, 5 device not available, 130 stopped (a training's state is saved)."
)

INTERRUPTED = "galip: interrupted; nothing half-written is left behind"

app = typer.Typer(
    name="galip",
    add_completion=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
    pretty_exceptions_enable=False,
)
app.command("generate")(pictures.generate)
app.command("interpolate")(pictures.interpolate)
app.command("sample-grid")(pictures.sample_grid)
app.command("evaluate")(evaluating.evaluate)
app.command("bench")(benching.bench)
app.command("export")(exporting.export)
app.command("convert")(exporting.convert)
app.command("info")(exporting.info)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.command("train-clip")(training.train_clip)
app.command("train")(training.train)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.result(f"galip {version('galip')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (works anywhere).")
    ] = False,
) -> None:
    """GALIP text-to-image: train in PyTorch, export to ONNX, make pictures in one forward pass."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in own
    arguments = [argument for argument in own if argument != "--debug"] + arguments[len(own) :]
    sys.exit(console.run(partial(_run, arguments, debug), "galip"))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        result = app(arguments or ["--help"], prog_name="galip", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == 130:  # typer's for Ctrl-C, and a stopped training's
            console.message(INTERRUPTED)
        return code
    except typer.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.message(INTERRUPTED)
        return 130
    except Exception as error:
        shown = _described(error)
        if debug:
            parts = traceback.format_exception(error)
            console.message(*(line for part in parts for line in part.splitlines()))
        console.failure("galip", shown)
        return shown.exit_code


def _described(error: Exception) -> GalipError:
    """What the user is shown of an error."""
    if isinstance(error, GalipError):
        return error
    if isinstance(error, typer.exceptions.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "galip")
        return UsageError(f"{error.format_message().rstrip('.')}. See {command} --help.")
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        # A path that was named and that the system refused where nobody expected it
        path = os.fsdecode(error.filename)
        return UsageError(f"{path} cannot be used ({error.strerror}); check its name and permissions")
    if isinstance(error, MemoryError):
        return UsageError("this takes more memory than there is; ask for less at a time, or smaller pictures")
    advice = "run it again with --debug to see where, and report it"
    return GalipError(f"unexpected: {type(error).__name__}: {error}", advice)
