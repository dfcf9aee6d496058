"""Harness of the studies: a bundle's generator by itself, timed rounds, tables, and the command line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_bench.statistics import ratio_of
from galip_runtime import console
from galip_runtime.bundle.manifest import Manifest, read_manifest, verify_files
from galip_runtime.errors import GalipError, UsageError
from numpy.typing import NDArray

__all__ = ["GeneratorFile", "alternate", "changes_table", "command", "ratio_text"]


@dataclass(frozen=True)
class GeneratorFile:
    """A bundle's generator, and inputs for it."""

    bundle: Path
    manifest: Manifest
    inputs: dict[str, NDArray[np.float32]]
    """Random ones of one picture."""

    @classmethod
    def of(cls, bundle: Path) -> GeneratorFile:
        """Return the generator of a verified bundle.

        Raises `UsageError` for a bundle without fp32, and as `read_manifest` and `verify_files`.
        """
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
        """Return the path of the graph in `precision`."""
        return self.bundle / self.manifest.graphs["generator"][precision].file

    def facts(self, threads: int) -> dict[str, Any]:
        """Return what a result says about the bundle and the machine."""
        height = self.manifest.dimensions.image_height
        return {
            "bundle": {"source": vars(self.manifest.source), "image_height": height},
            "machine": asdict(describe_machine()),
            "threads": threads,
        }


def changes_table(columns: Sequence[tuple[str, Mapping[str, Sequence[float]]]], base: str) -> str:
    """Return Markdown with a row for each change: its time over that of `base`.

    `columns`: titles, and samples by change.
    """
    rows = [
        [name, *("1" if name == base else ratio_text(samples[name], samples[base]) for _, samples in columns)]
        for name in columns[0][1]
    ]
    return markdown_table(["", *(title for title, _ in columns)], rows)


def ratio_text(samples: Sequence[float], base: Sequence[float]) -> str:
    """Return the median ratio of samples of the same rounds, and its 95 % interval."""
    ratio = ratio_of(samples, base)
    low, high = ratio.interval_95
    return f"{ratio.median:.2f} ({low:.2f} to {high:.2f})"


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Return the seconds of each call in every round. Calls take turns; `warmup` rounds come before."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warmup, rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def command(
    name: str,
    description: str | None,
    measure: Callable[[Path, int, int | None], Mapping[str, Any]],
    table: Callable[[Sequence[Mapping[str, Any]]], str],
    rounds: int,
    subject: str = "bundle",
) -> None:
    """Run a study on the `subject` that the command line names: write the result, print its table."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}", description=description)
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
