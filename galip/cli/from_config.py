"""A command whose options are the fields of a config dataclass, so that both say the same."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

__all__ = ["options_of"]


def options_of(config_class: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `function(config, **rest)`: each field of `config_class` becomes an option of the command.

    A field's metadata `help` is the option's; fields without default are required; tuples may be repeated.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(config_class)
        parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(config_class)]
        names = [parameter.name for parameter in parameters]
        rest = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def command(**values: Any) -> Any:
            fields = {name: values.pop(name) for name in names}
            config = config_class(
                **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            )
            return function(config, **values)

        command.__doc__ = function.__doc__
        parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in rest]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    many = typing.get_origin(hint) is tuple
    required = field.default is dataclasses.MISSING
    name = "--" + field.name.replace("_", "-")
    flags = (f"{name}/--no-{name[2:]}",) if hint is bool else (name,)
    option = typer.Option(*flags, help=field.metadata["help"], show_default=not (required or many))
    default: Any = inspect.Parameter.empty if required else field.default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(default) if many else default,
        annotation=Annotated[list[str] if many else hint, option],
    )
