"""Modules and their contents under the names that they had in 0.1; to be removed after the next release."""

import sys
import warnings
from collections.abc import Callable, Sequence
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
    """Finds a module by its old name, with a DeprecationWarning; asked only where no module has the name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a renamed module; None for all others."""
        return ModuleSpec(fullname, self) if fullname in _RENAMED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one: `exec_module` puts the renamed module in its place."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Let the old name stand for the module itself, so that both are one."""
        name = module.__name__
        warnings.warn(f"{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(_RENAMED[name])


def renamed(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module some of whose names are others now: old to new."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {names[name]}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return get
