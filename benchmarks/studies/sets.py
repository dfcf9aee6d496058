"""Sets of pictures: their size, and how fast `galip generate-set` is:
`python -m studies.sets --out FILE.json`.

With the shipped model: bytes a picture and in a shard by format, pictures a second by number of workers, and
prompts that are read and checked a second by kind of file.

Found: see `sets_default.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_runtime import console
from galip_runtime.errors import GalipError
from galip_runtime.hardware import usable_cpus
from galip_runtime.sets import SetOptions, generate_set
from galip_runtime.sets.plan import ShardIndex
from galip_runtime.sets.prompts import open_prompts

__all__ = ["main", "measure", "table"]

SCHEMA = 1
PROMPTS = (
    "a red apple, 3D style", "a car, flat style", "a rose, twemoji style", "a star, noto style",
    "a Christmas tree, 3D style", "a cat, flat style", "a house, twemoji style", "a heart, noto style",
)  # fmt: skip
COUNT = 50
"""Pictures of each prompt."""
FORMATS = ("png", "jpeg", "webp")
READ = 200_000
"""Prompts of the files that are read."""


def measure(rounds: int) -> dict[str, Any]:
    """Return the result file's content."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        return {
            "schema": SCHEMA,
            "benchmark": "sets",
            "config": {"prompts": len(PROMPTS), "count": COUNT, "read": READ, "rounds": rounds},
            "machine": asdict(describe_machine()),
            "bytes": {kind: _sizes(work, kind) for kind in FORMATS},
            "pictures_per_second": _rates(work, rounds),
            "prompts_per_second": _reading(work, rounds),
        }


def _options(work: Path, name: str, **options: Any) -> SetOptions:
    prompts = work / "prompts.txt"
    prompts.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), "utf-8")
    return SetOptions(prompts=prompts, out=work / name, count=COUNT, device="cpu", **options)


def _sizes(work: Path, kind: str) -> dict[str, float]:
    """Return means: bytes of a picture's file, and what it takes in a shard with its prompt and JSON."""
    options = _options(work, f"size_{kind}", format=kind)
    result = generate_set(options)
    shards = sorted(options.out.glob("*.tar"))
    files = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            files += [member.size for member in tar if member.name.endswith(f".{kind}")]
    return {
        "picture": mean(files),
        "in_a_shard": sum(shard.stat().st_size for shard in shards) / result.pictures,
    }


def _rates(work: Path, rounds: int) -> dict[str, list[float]]:
    """Return pictures a second of whole runs by number of workers, by turns; CPUs are divided among them."""
    counts = sorted({1, usable_cpus()})
    rates: dict[str, list[float]] = {str(count): [] for count in counts}
    for number in range(rounds):
        for count in counts:
            options = _options(work, f"rate_{number}_{count}", workers=count, shard_size=50)
            started = time.perf_counter()
            pictures = generate_set(options).generated
            rates[str(count)].append(pictures / (time.perf_counter() - started))
    return rates


def _reading(work: Path, rounds: int) -> dict[str, float]:
    """Return prompts a second that are read and checked, medians, by kind of file."""
    rows = [f"{PROMPTS[number % len(PROMPTS)]}, number {number}" for number in range(READ)]
    files = {kind: work / f"read.{kind}" for kind in ("txt", "jsonl", "csv", "parquet")}
    files["txt"].write_text("".join(f"{row}\n" for row in rows), "utf-8")
    files["jsonl"].write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows), "utf-8")
    with files["csv"].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["prompt"], *([row] for row in rows)])
    _write_parquet(files["parquet"], rows)
    rates: dict[str, list[float]] = {kind: [] for kind in files}
    for _ in range(rounds):
        for kind, path in files.items():
            options = SetOptions(prompts=path, out=work / "unused")
            started = time.perf_counter()
            index = ShardIndex.scan(open_prompts(path), options)
            rates[kind].append(index.prompts / (time.perf_counter() - started))
    return {kind: median(values) for kind, values in rates.items()}


def _write_parquet(path: Path, rows: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"prompt": list(rows)}), path, row_group_size=10_000)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown tables of a result file."""
    (result,) = results
    sizes = [
        [kind, f"{entry['picture']:,.0f}", f"{entry['in_a_shard']:,.0f}"]
        for kind, entry in result["bytes"].items()
    ]
    rates = [[count, f"{median(values):.0f}"] for count, values in result["pictures_per_second"].items()]
    reading = [[kind, f"{rate:,.0f}"] for kind, rate in result["prompts_per_second"].items()]
    return "\n\n".join(
        (
            markdown_table(["format", "bytes of a picture", "bytes in a shard"], sizes),
            markdown_table(["workers", "pictures/s"], rates),
            markdown_table(["prompts from", "prompts/s"], reading),
        )
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    try:
        result = measure(arguments.rounds)
    except GalipError as error:
        console.failure("studies.sets", error)
        sys.exit(error.exit_code)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.result(*table([result]).splitlines())


if __name__ == "__main__":
    main()
