"""`make fuzz`: run every target for its share of the time, then print a table of trials and outcomes."""

import argparse
import json
import secrets
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz.harness import TARGETS, Result, run
from galip_bench.machine import describe_machine
from galip_runtime.hardware import usable_cpus
from studies.fuzz import table

KEEP = Path("demo/fuzz")


def main() -> int:
    """Run the command. Returns exit code 1 if a trial failed."""
    options = _options()
    home = KEEP / "work"
    shutil.rmtree(home, ignore_errors=True)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.jobs} at a time", flush=True)
    seconds = 60 * options.minutes / len(options.targets)
    numbers = None if options.only is None else [options.only]
    results = []
    try:
        for target in options.targets:
            print(f"{target} …", flush=True)
            results.append(
                run(
                    target,
                    options.seed,
                    home / target,
                    KEEP,
                    seconds=seconds,
                    numbers=iter(numbers) if numbers else None,
                    jobs=1 if numbers else options.jobs,
                    report=lambda line: print(f"FAULT {line}", flush=True),
                )
            )
            print(_summary(results[-1]), flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(home, ignore_errors=True)
    document = _document(results, options)
    print(f"\n{table([document])}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    failed = any(result.faults for result in results)
    if failed:
        print(f"\n{KEEP} has the inputs of the faults, and how to reproduce them")
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="default: random, printed")
    parser.add_argument("--targets", default="", help=f"some of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--only", type=int, help="run only the trial of this number")
    parser.add_argument("--jobs", type=int, default=usable_cpus())
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    options.seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    options.targets = options.targets.replace(",", " ").split() or list(TARGETS)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no targets {', '.join(sorted(unknown))}; targets are {', '.join(TARGETS)}")
    return options


def _summary(result: Result) -> str:
    lines = [f"  {result.tried} tried, {result.held} held, in {result.seconds:.0f} s"]
    lines += [f"    {count} × {outcome}" for outcome, count in sorted(result.outcomes.items())]
    kinds: dict[str, list[int]] = {}
    for fault in result.faults:
        kinds.setdefault(fault.what, []).append(fault.number)
    lines += [f"    FAULT {len(numbers)} × {what} ({numbers[0]} …)" for what, numbers in kinds.items()]
    return "\n".join(lines)


def _document(results: list[Result], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": "fuzz",
        "seed": options.seed,
        "minutes": options.minutes,
        "targets": {
            result.target: {
                "tried": result.tried,
                "held": result.held,
                "seconds": round(result.seconds, 1),
                "outcomes": dict(sorted(result.outcomes.items())),
                "faults": sorted({fault.what for fault in result.faults}),
            }
            for result in results
        },
        "machine": asdict(describe_machine()),
    }


if __name__ == "__main__":
    sys.exit(main())
