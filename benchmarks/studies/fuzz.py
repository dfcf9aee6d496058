"""The table of what `make fuzz` tried, for a README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["table"]

_TRIALS = {
    "mutated_bundles": "bundles with damaged files, on cpu and openvino",
    "forged_bundles": "forged bundles whose hashes are right, on cpu and openvino",
    "checkpoints": "damaged and forged checkpoints, `.safetensors` and `.pth`",
    "datasets": "data sets with damaged and hostile files",
    "captions": "hundreds of texts each, against open_clip's tokenizer",
    "killed_exports": "exports killed at a random moment",
    "killed_trainings": "trainings killed at random moments and resumed",
    "threads": "80 calls from 16 threads each, on cpu and openvino",
}


def table(reports: Sequence[dict[str, Any]]) -> str:
    """Tried and held by target, as Markdown; of several results, all together."""
    rows = ["| what | tried | held |", "|---|--:|--:|"]
    for target in dict.fromkeys(name for report in reports for name in report["targets"]):
        own = [report["targets"][target] for report in reports if target in report["targets"]]
        tried, held = (sum(each[key] for each in own) for key in ("tried", "held"))
        rows.append(f"| {_TRIALS.get(target, target)} | {tried:,} | {held:,} |")
    return "\n".join(rows)
