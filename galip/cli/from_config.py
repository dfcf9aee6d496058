"""A command whose options are the fields of a config dataclass, so that both say the same.

Options that aren't given stay out of the way: a TOML file's or a preset's values come before the fields'
defaults.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

__all__ = ["options_of"]


def options_of(config_class: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `function(given, **rest)`: each field of `config_class` becomes an option of the command.

    `given` has the options that were on the command line. A field's metadata `help` is the option's, and its
    default is shown there; tuples may be repeated.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(config_class)
        parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(config_class)]
        names = [parameter.name for parameter in parameters]
        rest = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def command(**values: Any) -> Any:
            fields = {name: values.pop(name) for name in names}
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in fields.items()
                if value not in (None, [])
            }
            return function(given, **values)

        command.__doc__ = function.__doc__
        parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in rest]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    many = typing.get_origin(hint) is tuple
    name = "--" + field.name.replace("_", "-")
    flags = (f"{name}/--no-{name[2:]}",) if hint is bool else (name,)
    text = field.metadata["help"]
    if field.default is dataclasses.MISSING:
        text += " [required]"
    elif not many and field.default != "":
        default = (name if field.default else f"no-{name[2:]}").lstrip("-") if hint is bool else field.default
        text += f" [default: {default}]"
    option = typer.Option(*flags, help=text, show_default=False)
    kind: Any = list[str] if many else hint
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
