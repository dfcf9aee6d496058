"""Export a GALIP checkpoint to a bundle of ONNX graphs that is proved equal to the model.

Nothing heavy is imported until one of the names below is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galip_export.bundle import ExportReport, GraphReport, export_bundle
    from galip_export.comparison import Comparison, compare
    from galip_export.engines import add_engines
    from galip_export.onnx_export import OPSET, export_generator, export_text_encoder
    from galip_export.precision import PRECISIONS
    from galip_export.tensorrt import BuildOptions
    from galip_export.verify import GraphParity, verify_bundle

__all__ = [
    "OPSET",
    "PRECISIONS",
    "BuildOptions",
    "Comparison",
    "ExportReport",
    "GraphParity",
    "GraphReport",
    "add_engines",
    "compare",
    "export_bundle",
    "export_generator",
    "export_text_encoder",
    "verify_bundle",
]

_MODULES = {
    "bundle": ("ExportReport", "GraphReport", "export_bundle"),
    "comparison": ("Comparison", "compare"),
    "engines": ("add_engines",),
    "onnx_export": ("OPSET", "export_generator", "export_text_encoder"),
    "precision": ("PRECISIONS",),
    "tensorrt": ("BuildOptions",),
    "verify": ("GraphParity", "verify_bundle"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"galip_export.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
