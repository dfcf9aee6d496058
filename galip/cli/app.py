"""The tree of commands, and the way from its outcome to an exit code."""

from __future__ import annotations

import sys
import traceback
from functools import partial
from typing import Annotated

import typer
from galip_runtime import console

from galip.cli.bench import bench
from galip.cli.convert import convert
from galip.cli.data_check import check
from galip.cli.data_icons import icons
from galip.cli.doctor import doctor
from galip.cli.evaluate import evaluate
from galip.cli.export import export
from galip.cli.failures import as_galip_error
from galip.cli.generate import generate
from galip.cli.generate_set import generate_set
from galip.cli.info import info
from galip.cli.interpolate import interpolate
from galip.cli.sample_grid import sample_grid
from galip.cli.serve import serve
from galip.cli.train import train
from galip.cli.train_clip import train_clip

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 done, 1 unexpected, 2 usage, 3 parity or quality gate failed, "
    "4 file refused, 5 device or service not available, 130 stopped (a training's state is saved)."
)

INTERRUPTED = "galip: interrupted; no half-written file is left behind"

data = typer.Typer(rich_markup_mode=None, help="Build and check training data.")
data.command("icons")(icons)
data.command("check")(check)

app = typer.Typer(
    name="galip",
    add_completion=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate)
app.command("generate-set")(generate_set)
app.command("interpolate")(interpolate)
app.command("sample-grid")(sample_grid)
app.command("evaluate")(evaluate)
app.command("serve")(serve)
app.command("bench")(bench)
app.command("export")(export)
app.command("convert")(convert)
app.command("info")(info)
app.command("doctor")(doctor)
app.add_typer(data, name="data")
app.command("train-clip")(train_clip)
app.command("train")(train)


def _print_version(is_asked_for: bool) -> None:
    if is_asked_for:
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
    """Run the command and exit with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    arguments = [argument for argument in options if argument != "--debug"] + arguments[len(options) :]
    sys.exit(console.run(partial(_run, arguments, debug), "galip"))


def _run(arguments: list[str], debug: bool) -> int:
    """Run the command here and return its exit code."""
    try:
        result = app(arguments or ["--help"], prog_name="galip", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == 130:  # Ctrl-C in typer, or a training that was stopped
            console.message(INTERRUPTED)
        return code
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.message(INTERRUPTED)
        return 130
    except Exception as exception:
        error = as_galip_error(exception)
        if debug:
            parts = traceback.format_exception(exception)
            console.message(*(line for part in parts for line in part.splitlines()))
        console.failure("galip", error)
        return error.exit_code
