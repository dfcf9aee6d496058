"""Table of what `make fuzz` tried and what held. Result: `fuzz.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from galip_bench.markdown import markdown_table

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
    """Return Markdown: how many trials of each target there were and held, in all results together."""
    rows = []
    for target in dict.fromkeys(name for report in reports for name in report["targets"]):
        own = [report["targets"][target] for report in reports if target in report["targets"]]
        tried, held = (sum(result[key] for result in own) for key in ("tried", "held"))
        rows.append([_TRIALS.get(target, target), f"{tried:,}", f"{held:,}"])
    return markdown_table(["what", "tried", "held"], rows)
