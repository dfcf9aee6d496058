"""The metrics of `galip evaluate`. This file registers them; `figures` computes them.

Importing it is cheap, so that the command's help can list the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

__all__ = ["METRICS", "Metric", "Needs", "metrics_that_need"]


class Needs(Flag):
    """What a metric is computed from."""

    STATISTICS = auto()
    """Mean and covariance of Inception's features, of both sets of pictures."""
    FEATURES = auto()
    """Inception's features of both sets."""
    EMBEDDINGS = auto()
    """CLIP's embeddings of the subject's pictures, and their captions."""
    REFERENCE_EMBEDDINGS = auto()
    """CLIP's embeddings of the reference's pictures, and their captions."""
    MODEL = auto()
    """A subject that generates pictures."""


@dataclass(frozen=True)
class Metric:
    """A row of `METRICS`; the function of its name in `figures` computes it."""

    needs: Needs
    min_captions: int = 0
    """Different captions that the subject's pictures must have."""
    note: str = ""
    """What the name doesn't say, after it in the command's help."""


METRICS = {
    "fid": Metric(Needs.STATISTICS),
    "fid_real": Metric(Needs.FEATURES, note=" (between the reference's halves)"),
    "kid": Metric(Needs.FEATURES),
    "precision_recall": Metric(Needs.FEATURES),
    "clip_score": Metric(Needs.EMBEDDINGS),
    "retrieval": Metric(Needs.EMBEDDINGS | Needs.REFERENCE_EMBEDDINGS, min_captions=100),
    "seed_psnr": Metric(Needs.MODEL),
}
"""The metrics by name, in the order of a report. A metric is a function in `figures` and a line here."""


def metrics_that_need(names: set[str], needs: Needs) -> list[str]:
    """Return those of the metrics `names` that need any of `needs`, sorted."""
    return sorted(name for name in names if METRICS[name].needs & needs)
