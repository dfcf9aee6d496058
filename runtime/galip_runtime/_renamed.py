"""Modules and what they hold under their names of 0.1, until the next release."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["RenamedModules", "renamed"]

_RENAMED = {
    "galip_runtime.cpus": "galip_runtime.hardware",
    "galip_runtime.devices": "galip_runtime.backends.devices",
    "galip_runtime.drawer": "galip_runtime.text_to_image",
    "galip_runtime.engines": "galip_runtime.backends.engines",
    "galip_runtime.folders": "galip_runtime.cache",
    "galip_runtime.gpus": "galip_runtime.hardware",
    "galip_runtime.manifest": "galip_runtime.bundle.manifest",
    "galip_runtime.pipeline": "galip_runtime.model",
    "galip_runtime.strict_json": "galip_runtime.bundle.decoding",
    "galip_runtime.verified": "galip_runtime.bundle.hash_cache",
}


class RenamedModules(MetaPathFinder, Loader):
    """Finds modules by their old names, with a DeprecationWarning, where no module has the name."""

    def __init__(self, names: Mapping[str, str] = _RENAMED) -> None:
        """`names`: old to new, in full; by default those of galip_runtime."""
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a renamed module, None for all others."""
        return ModuleSpec(fullname, self) if fullname in self._names else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module; `exec_module` replaces it by the renamed one."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Let the old name stand for the renamed module itself, so that both are one."""
        old, new = module.__name__, self._names[module.__name__]
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def renamed(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `module`, some of whose `names` changed: old to new."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {names[name]}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return get
