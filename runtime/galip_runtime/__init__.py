"""Run an exported GALIP bundle with numpy and onnxruntime.

    import galip_runtime

    model = galip_runtime.load("bundle")
    pictures = model.generate(["a red apple"], seeds=[7])  # uint8 (N, H, W, 3)

What needs numpy is imported when it is first used, so that the errors and the version cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from galip_runtime.errors import FileRefused, GalipError, ProviderUnavailable, QualityGateFailed, UsageError

if TYPE_CHECKING:
    from galip_runtime.drawer import Drawer, seed_series
    from galip_runtime.loading import load
    from galip_runtime.pipeline import Model
    from galip_runtime.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "Drawer",
    "FileRefused",
    "GalipError",
    "Model",
    "ProviderUnavailable",
    "QualityGateFailed",
    "Tokenizer",
    "UsageError",
    "load",
    "seed_series",
]

_HOMES = {
    "Drawer": "drawer",
    "Model": "pipeline",
    "Tokenizer": "tokenizer",
    "load": "loading",
    "seed_series": "drawer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'galip_runtime' has no attribute {name!r}")
    value = getattr(import_module(f"galip_runtime.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
