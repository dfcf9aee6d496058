"""Run an exported GALIP bundle with numpy and onnxruntime.

    import galip_runtime

    model = galip_runtime.load("bundle")
    pictures = model.generate(["a red apple"], seeds=[7])  # uint8 (N, H, W, 3)

What needs numpy is imported when it is first used, so that the errors and the version cost nothing.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from galip_runtime._renamed import RenamedModules
from galip_runtime.errors import (
    DeadlineExceeded,
    FileRefused,
    GalipError,
    ProviderUnavailable,
    QualityGateFailed,
    ServiceUnavailable,
    UsageError,
)

if TYPE_CHECKING:
    from galip_runtime.batching.batcher import Batcher, BatchObserver
    from galip_runtime.loading import load
    from galip_runtime.model import Model
    from galip_runtime.text_to_image import PromptCut, TextToImage, seed_series
    from galip_runtime.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "BatchObserver",
    "Batcher",
    "DeadlineExceeded",
    "FileRefused",
    "GalipError",
    "Model",
    "PromptCut",
    "ProviderUnavailable",
    "QualityGateFailed",
    "ServiceUnavailable",
    "TextToImage",
    "Tokenizer",
    "UsageError",
    "load",
    "seed_series",
]

_HOMES = {
    "BatchObserver": "batching.batcher",
    "Batcher": "batching.batcher",
    "Model": "model",
    "PromptCut": "text_to_image",
    "Tokenizer": "tokenizer",
    "TextToImage": "text_to_image",
    "load": "loading",
    "seed_series": "text_to_image",
}


_RENAMED = {"Drawer": "TextToImage"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"galip_runtime.{name} is now galip_runtime.{_RENAMED[name]}", DeprecationWarning, stacklevel=2
        )
        return __getattr__(_RENAMED[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'galip_runtime' has no attribute {name!r}")
    value = getattr(import_module(f"galip_runtime.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


sys.meta_path.append(RenamedModules())
