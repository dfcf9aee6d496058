"""How good pictures are: FID, KID, precision and recall, CLIP score, retrieval, variety between seeds.

`evaluate` evaluates a model, a bundle or a folder. Importing this package is cheap: its modules come in when
they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galip.metrics.config import EvaluationConfig
    from galip.metrics.distances import frechet_distance, kernel_distance, precision_recall
    from galip.metrics.evaluation import evaluate
    from galip.metrics.inception import Inception
    from galip.metrics.report import Report
    from galip.metrics.statistics import Statistics

__all__ = [
    "EvaluationConfig",
    "Inception",
    "Report",
    "Statistics",
    "evaluate",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
]

_HOMES = {
    "EvaluationConfig": "config",
    "Inception": "inception",
    "Report": "report",
    "Statistics": "statistics",
    "evaluate": "evaluation",
    "frechet_distance": "distances",
    "kernel_distance": "distances",
    "precision_recall": "distances",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'galip.metrics' has no attribute {name!r}")
    return getattr(import_module(f"galip.metrics.{_HOMES[name]}"), name)
