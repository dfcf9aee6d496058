"""The generator alone, out of a bundle: what `operators.py` and both `options.py` have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from galip_bench.machine import describe_machine
from galip_bench.summary import ratio_of
from galip_runtime import console
from galip_runtime.bundle.manifest import Manifest, read_manifest, verify_files
from galip_runtime.errors import GalipError, UsageError
from numpy.typing import NDArray

__all__ = ["Alone", "changes_table", "command"]


@dataclass(frozen=True)
class Alone:
    """A bundle's generator."""

    bundle: Path
    manifest: Manifest
    inputs: dict[str, NDArray[np.float32]]
    """of one picture, random"""

    @classmethod
    def of(cls, bundle: Path) -> Alone:
        """Raises `UsageError` for a bundle without fp32, and as `read_manifest` and `verify_files`."""
        manifest = read_manifest(bundle)
        verify_files(bundle, manifest)
        specs = manifest.graphs["generator"]
        if "fp32" not in specs:
            raise UsageError(f"{bundle} has no fp32 generator; export it with --precision fp32")
        rng = np.random.default_rng(0)
        sizes = {tensor.name: int(tensor.shape[1]) for tensor in specs["fp32"].inputs}
        inputs = {name: rng.standard_normal((1, size), np.float32) for name, size in sizes.items()}
        return cls(bundle, manifest, inputs)

    def path(self, precision: str) -> Path:
        """The graph's file."""
        return self.bundle / self.manifest.graphs["generator"][precision].file

    def facts(self, threads: int) -> dict[str, Any]:
        """What a result says of what was measured, and on what."""
        height = self.manifest.dimensions.image_height
        return {
            "bundle": {"source": vars(self.manifest.source), "image_height": height},
            "machine": describe_machine(),
            "threads": threads,
        }


def changes_table(columns: Sequence[tuple[str, Mapping[str, Sequence[float]]]], base: str) -> str:
    """Markdown: a row each change, its time over that of `base`. `columns`: title, and samples by change."""
    lines = [f"| | {' | '.join(title for title, _ in columns)} |", "|---" + "|--:" * len(columns) + "|"]
    for name in columns[0][1]:
        cells = []
        for _, samples in columns:
            ratio = ratio_of(samples[name], samples[base])
            low, high = ratio.interval_95
            cells.append("1" if name == base else f"{ratio.median:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def command(
    name: str,
    description: str | None,
    measure: Callable[[Path, int, int | None], Mapping[str, Any]],
    table: Callable[[Sequence[Mapping[str, Any]]], str],
    rounds: int,
    subject: str = "bundle",
) -> None:
    """Measure the `subject` that the command line names, write the result, print its table."""
    parser = argparse.ArgumentParser(prog=f"python -m galip_bench.{name}", description=description)
    parser.add_argument(subject, type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file for the result, JSON")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    try:
        if arguments.rounds < 1:
            raise UsageError(f"--rounds is {arguments.rounds}; it must be 1 or more")
        result = measure(getattr(arguments, subject), arguments.rounds, arguments.threads)
    except GalipError as error:
        console.failure("error", error)
        sys.exit(error.exit_code)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.report(*table([result]).splitlines())
