"""`galip serve`, whose options are those of `python -m galip_runtime.serve`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from galip_runtime.serve.options import BUNDLE, DESCRIPTION, OPTIONS, default_of, flag
from galip_runtime.serve.settings import ServeSettings

__all__ = ["serve"]


def serve(**values: Any) -> int:
    """Serve until a signal, and return the exit code. `values`: the bundle and the options by their names."""
    from galip_runtime.serve.server import run

    return run(ServeSettings(**{"page": _built_page(), **_given(values)}))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _built_page() -> Path | None:
    """Return the folder of the page that comes with galip, None if it was not built."""
    from galip_export.web import PAGE

    return PAGE if (PAGE / "index.html").is_file() else None


def _parameter(name: str) -> inspect.Parameter:
    option = OPTIONS[name]
    default = [] if option.kind is tuple else default_of(name)
    kind: Any = list[str] if option.kind is tuple else option.kind | None if default is None else option.kind
    annotation = Annotated[
        kind,
        typer.Option(
            flag(name),
            help=option.help,
            metavar=option.metavar or None,
            show_default=option.kind not in (bool, tuple) and default is not None,
        ),
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_bundle = Annotated[Path | None, typer.Argument(metavar="BUNDLE", help=BUNDLE, show_default=False)]
_parameters = [
    inspect.Parameter("bundle", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_bundle),
    *map(_parameter, OPTIONS),
]
serve.__doc__ = DESCRIPTION
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
