"""A command whose options are the fields of a config dataclass, so that the two never disagree.

Options that are not on the command line have no value here: those of a TOML file or a preset come before
the fields' defaults.
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
    """Decorate `function(options, **others)`: each field of `config_class` becomes an option of the command.

    `options` holds the ones that were on the command line. An option's help is the field's metadata `help`
    with the field's default; an option for a tuple may be repeated.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(config_class)
        parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(config_class)]
        names = [parameter.name for parameter in parameters]
        others = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def command(**values: Any) -> Any:
            fields = {name: values.pop(name) for name in names}
            options = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in fields.items()
                if value not in (None, [])
            }
            return function(options, **values)

        command.__doc__ = function.__doc__
        parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    """Return the parameter of a command that typer makes an option for `field` of."""
    is_tuple = typing.get_origin(hint) is tuple
    name = "--" + field.name.replace("_", "-")
    flags = (f"{name}/--no-{name[2:]}",) if hint is bool else (name,)
    text = field.metadata["help"]
    if field.default is dataclasses.MISSING:
        text += " [required]"
    elif not is_tuple and field.default != "":
        default = (name if field.default else f"no-{name[2:]}").lstrip("-") if hint is bool else field.default
        text += f" [default: {default}]"
    option = typer.Option(*flags, help=text, show_default=False)
    kind: Any = list[str] if is_tuple else hint
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
