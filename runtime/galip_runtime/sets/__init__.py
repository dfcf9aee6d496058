"""Many pictures: prompts from a file, pictures into shards, on one machine or a Ray cluster.

    from galip_runtime.sets import SetOptions, generate_set

    generate_set(SetOptions(prompts=Path("prompts.txt"), out=Path("set")))

`python -m galip_runtime.sets` is the command.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from galip_runtime.sets.options import SetOptions, parse_seeds

if TYPE_CHECKING:
    from galip_runtime.sets.generate import SetResult, generate_set

__all__ = ["SetOptions", "SetResult", "generate_set", "parse_seeds"]


def __getattr__(name: str) -> Any:
    if name in ("SetResult", "generate_set"):
        return getattr(import_module("galip_runtime.sets.generate"), name)
    raise AttributeError(f"module 'galip_runtime.sets' has no attribute {name!r}")
