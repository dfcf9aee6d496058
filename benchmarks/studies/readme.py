"""Write the tables of README and docs: `python -m studies.readme README.md docs/results.md`.

Text between `<!-- RESULTS -->`, which names files of benchmarks/results, and `<!-- end -->` is replaced by
tables of them; text after `<!-- devices -->` by the runtime's table of devices. A name with `*` stands for
all files that there are, in order; there may be none yet.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galip_bench.markdown_report import fid_summary, latency_summary
from galip_bench.report import Report

from studies import device_table, fuzz, gpu_options, kernels, operators, options, rewrites, sets, throughput
from studies.peers import table as peers
from studies.serving import endurance as serve_endurance
from studies.serving import throughput as serve_throughput

__all__ = ["main", "rendered"]

RESULTS = Path(__file__).parents[1] / "results"

_BLOCK = re.compile(r"(<!-- ((?:[\w*]+\.json )+|devices )-->)\n.*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, results: Path = RESULTS) -> str:
    """Return `text` with its tables made from the files in `results` and the table of devices."""

    def block(match: re.Match[str]) -> str:
        if match[2] == "devices ":
            return f"{match[1]}\n\n{device_table.table()}\n\n{match[3]}"
        files = [file for name in match[2].split() for file in _files(results, name)]
        reports = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        tables = _table(reports) if reports else "Not measured yet."
        return f"{match[1]}\n\n{tables}\n\n{match[3]}"

    return _BLOCK.sub(block, text)


def _files(results: Path, name: str) -> list[Path]:
    return sorted(results.glob(name)) if "*" in name else [results / name]


def _table(reports: Sequence[dict[str, Any]]) -> str:
    own = {
        "training_throughput": throughput.table,
        "fuzz": fuzz.table,
        "gpu_options": gpu_options.table,
        "kernels": kernels.table,
        "operators": operators.table,
        "options": options.table,
        "peers": peers.table,
        "rewrites": rewrites.table,
        "serve_endurance": serve_endurance.table,
        "serve_throughput": serve_throughput.table,
        "sets": sets.table,
    }
    if (kind := reports[0].get("benchmark")) in own:
        return own[kind](reports)
    parts = [Report.of(report) for report in reports]
    return "\n\n".join(fid_summary(part) if part.fid else latency_summary(part) for part in parts)


def main() -> None:
    """The command."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
