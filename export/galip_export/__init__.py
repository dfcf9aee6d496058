"""Export a GALIP checkpoint to a bundle of ONNX graphs that is proved equal to the model.

Nothing heavy is imported before one of the names below is used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from galip_runtime._renamed import RenamedModules

if TYPE_CHECKING:
    from galip_export.comparison import Comparison, compare
    from galip_export.engines import add_engines
    from galip_export.export import ExportReport, GraphReport, export_bundle
    from galip_export.parity import GraphParity, verify_bundle
    from galip_export.precisions import PRECISIONS
    from galip_export.tensorrt_builder import BuildOptions
    from galip_export.trace import OPSET, export_generator, export_text_encoder

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
    "export": ("ExportReport", "GraphReport", "export_bundle"),
    "comparison": ("Comparison", "compare"),
    "engines": ("add_engines",),
    "trace": ("OPSET", "export_generator", "export_text_encoder"),
    "precisions": ("PRECISIONS",),
    "tensorrt_builder": ("BuildOptions",),
    "parity": ("GraphParity", "verify_bundle"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"galip_export.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.meta_path.append(
    RenamedModules(
        {
            "galip_export.bundle": "galip_export.export",
            "galip_export.graph_check": "galip_export.check",
            "galip_export.half": "galip_export.mixed_precision",
            "galip_export.onnx_export": "galip_export.trace",
            "galip_export.precision": "galip_export.precisions",
            "galip_export.quantise": "galip_export.quantization",
            "galip_export.tensorrt": "galip_export.tensorrt_builder",
            "galip_export.verify": "galip_export.parity",
        }
    )
)
