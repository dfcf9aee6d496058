"""The options of a run: a preset's, a resumed run's, a TOML file's and the command line's, each overriding
those before it.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from galip_runtime.bundle.decoding import parse
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular

from galip.assets import DEFAULT
from galip.presets import TABLE3

__all__ = ["TRAINING_PRESETS", "resolve", "stored_options"]

Config = TypeVar("Config")

_MAX_BYTES = 2**20
"""Of a file of options."""

_RELEASED: dict[str, Any] = {
    "model": "released",
    "batch_size": 512,  # 64 on each of 8 GPUs, as released
    "precision": "fp16",
    "crop": "random",
    "workers": 8,
    "save_every": 2_000,
    "evaluate_every": 2_000,
    "evaluate_count": 5_000,
}
"""What the paper (section 4) and the released training script say for all four data sets; learning rates,
Adam's decays and the losses' weights are the options' defaults. The number of steps is ours: the paper gives
days. CC3M and CC12M are evaluated on COCO, whose folder has to be given: --evaluate-every 2000
--evaluate-against COCO --evaluate-split test."""

_ICONS: dict[str, Any] = {
    "model": "default",
    "steps": 6_100,
    "batch_size": 16,
    "lr_g": 2e-4,
    "beta2": 0.99,
    "similarity_weight": 1.0,
    "ema_decay": 0.998,
    "warmup_steps": 5_600,
    "warmup_lr": 7e-4,
    "paired_steps": 6_040,
    "paired_feature_weight": 2.0,
    "range_weight": 10.0,
    "pose": True,
    "clip_shift": 4,
}
"""How the shipped model was trained at 64 pixels."""

TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        **_ICONS,
        "model": "default-64",
        "clip": DEFAULT,
        "init": DEFAULT,
        "steps": 1_900,
        "warmup_steps": 1_650,
        "paired_steps": 1_870,
        "save_every": 200,
    },
    "icons": _ICONS,
    "cub": {**_RELEASED, "steps": 26_000, "evaluate_split": "test"},
    "coco": {**_RELEASED, "steps": 100_000, "evaluate_split": "test"},
    "cc3m": {**_RELEASED, "steps": 150_000, "layout": "shards", "evaluate_every": 0},
    "cc12m": {**_RELEASED, "steps": 250_000, "layout": "shards", "evaluate_every": 0},
}
"""`galip train --preset`: the options that differ from the defaults. `quick`: 200 to 5,000 pictures of one's
own, ten minutes on two CPU cores. `table3-…`: rows of table 3."""

for _row in TABLE3:
    TRAINING_PRESETS[f"table3-{_row}"] = {**TRAINING_PRESETS["coco"], "model": f"table3-{_row}"}
TRAINING_PRESETS["table3-baseline"]["similarity_weight"] = 0.0  # of CLIP only its text tower


def resolve(
    config_class: type[Config],
    options: Mapping[str, Any],
    preset: str | None = None,
    file: Path | None = None,
    presets: Mapping[str, Mapping[str, Any]] = TRAINING_PRESETS,
    resume: bool = False,
) -> Config:
    """Create a `config_class` from `options`, which override those in the TOML `file`, which override those
    that the run in `out` began with if it is to `resume`, which override the `preset`.

    Raises `UsageError` for an unknown preset, a file that can't be read, isn't TOML or has an unknown or
    ill-typed option, for a required option that is missing everywhere, and for a value out of range.
    """
    if preset is not None and preset not in presets:
        raise UsageError(f"no preset {preset!r}; there are: {', '.join(presets)}")
    values: dict[str, Any] = {**(presets[preset] if preset else {})}
    hints = typing.get_type_hints(config_class)
    chosen = {**(_read(file, hints) if file is not None else {}), **options}
    if resume and "out" in chosen:
        values |= stored_options(Path(chosen["out"]), hints)
    values |= chosen
    missing = [
        f"--{field.name}"
        for field in dataclasses.fields(config_class)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} is missing; give it on the command line or in the --config file"
        )
    return config_class(**values)


def stored_options(out: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the options in `out`/config.json that are `known`; none if there is no such file.

    Raises `FileRefused` if it is damaged.
    """
    file = out / "config.json"
    if not file.exists():
        return {}
    try:
        options = parse(read_regular(file, _MAX_BYTES))
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in options.items()
            if name in known
        }
    except (FileRefused, AttributeError) as error:  # AttributeError: JSON that is not an object
        raise FileRefused(f"{file} is damaged: {error}; give all options again and remove it") from error


def _read(file: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    try:
        options = tomllib.loads(read_regular(file, _MAX_BYTES).decode())
    except FileRefused as error:
        raise UsageError(f"{error}; --config takes a TOML file") from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of 5,000 digits
        raise UsageError(f"{file} is not TOML: {error}") from error
    return {name: _typed(file, name, value, hints) for name, value in options.items()}


def _typed(file: Path, name: str, value: Any, hints: Mapping[str, Any]) -> Any:
    if name not in hints:
        raise UsageError(f"{file} has an unknown option {name!r}; there are: {', '.join(hints)}")
    hint = hints[name]
    if isinstance(hint, types.GenericAlias):  # tuple[str, ...]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    kind = "list of texts" if isinstance(hint, types.GenericAlias) else hint.__name__
    raise UsageError(f"{file}: {name} must be a {kind}, not {value!r}")
