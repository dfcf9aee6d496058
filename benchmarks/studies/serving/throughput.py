"""Pictures a second of `galip serve` and of a plain handler:
`python -m studies.serving.throughput [BUNDLE] --out FILE`.

The services run side by side and are asked by turns, so that a shared machine's drift affects all alike; one
that is not asked sleeps.

Found: see `serve_default.json` and `serve_full.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_bench.statistics import ratio_of
from galip_runtime import console
from galip_runtime.bundle.manifest import read_manifest
from galip_runtime.errors import GalipError, QualityGateFailed
from galip_runtime.shipped import default_bundle

from studies.harness import ratio_text
from studies.serving.servers import Load, load, plain_handler, serve

__all__ = ["CASES", "main", "measure", "table"]

SCHEMA = 1
BASE = "unbatched, one caller"
CASES = {
    BASE: ("unbatched", 1),
    "galip serve, one caller": ("galip serve", 1),
    "galip serve, 16 callers": ("galip serve", 16),
    "plain handler, one caller": ("plain handler", 1),
    "plain handler, 16 callers": ("plain handler", 16),
}
"""What is measured: a service, and how many callers ask it at once."""


@dataclass(frozen=True)
class Config:
    """How long."""

    rounds: int = 5
    seconds: float = 10.0
    """of each case in a round"""


def measure(bundle: Path | None, config: Config) -> dict[str, Any]:
    """Return the result file's content. Raises QualityGateFailed where an answer is no picture."""
    path = bundle or default_bundle()
    manifest = read_manifest(path)
    loads: dict[str, list[Load]] = {name: [] for name in CASES}
    with ExitStack() as stack:
        servers = {
            "unbatched": stack.enter_context(serve(bundle, "--max-batch", "1")),
            "galip serve": stack.enter_context(serve(bundle)),
            "plain handler": stack.enter_context(plain_handler(bundle)),
        }
        for number in range(-1, config.rounds):  # the first round warms up
            for place, (name, (server, callers)) in enumerate(CASES.items()):
                seed = 1 + ((number + 1) * len(CASES) + place) * 10_000_000
                result = load(servers[server].url, callers, config.seconds, seed)
                _check(name, result)
                if number >= 0:
                    loads[name].append(result)
    return {
        "schema": SCHEMA,
        "benchmark": "serve_throughput",
        "config": asdict(config),
        "machine": asdict(describe_machine()),
        "bundle": {
            "source": vars(manifest.source),
            "image_height": manifest.dimensions.image_height,
            "digest": manifest.digest,
        },
        "cases": {name: [asdict(one) for one in results] for name, results in loads.items()},
        "pictures_per_second": {
            name: median(one.pictures_per_second for one in results) for name, results in loads.items()
        },
        "times_the_base": {
            name: asdict(ratio_of(_rates(results), _rates(loads[BASE]))) for name, results in loads.items()
        },
    }


def _check(name: str, result: Load) -> None:
    if result.failed or set(result.statuses) != {"200"}:
        raise QualityGateFailed(f"{name}: not every request got a picture: {result}")


def _rates(results: Sequence[Load]) -> list[float]:
    return [one.pictures_per_second for one in results]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of result files, a row a case."""
    columns = ["", "pixels", "pictures/s", f"times {BASE} (95 %)", "median, ms", "99th percentile, ms"]
    rows = []
    for result in results:
        cases = {name: [Load(**one) for one in loads] for name, loads in result["cases"].items()}
        for name, loads in cases.items():
            rows.append(
                [
                    name,
                    str(result["bundle"]["image_height"]),
                    f"{median(_rates(loads)):.3g}",
                    "1" if name == BASE else ratio_text(_rates(loads), _rates(cases[BASE])),
                    f"{median(one.median_ms for one in loads):.0f}",
                    f"{median(one.p99_ms for one in loads):.0f}",
                ]
            )
    return markdown_table(columns, rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", help="Default: the shipped model's")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=Config.rounds)
    parser.add_argument("--seconds", type=float, default=Config.seconds)
    arguments = parser.parse_args()
    try:
        result = measure(arguments.bundle, Config(arguments.rounds, arguments.seconds))
    except GalipError as error:
        console.failure("studies.serving.throughput", error)
        sys.exit(error.exit_code)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.result(*table([result]).splitlines())


if __name__ == "__main__":
    main()
