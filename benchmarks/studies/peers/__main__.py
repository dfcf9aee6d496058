"""The command."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from galip_bench.config import BenchConfig
from galip_bench.models import prepare_models
from galip_runtime import console
from galip_runtime.arrays import check_count
from galip_runtime.errors import GalipError, UsageError
from galip_runtime.hardware import cpu_features

import studies.peers
from studies.peers.instructions import measured_on
from studies.peers.loaders import PEERS
from studies.peers.measure import Plan, measure
from studies.peers.table import table


def main() -> None:
    """Measure, write a result for each set of instructions, and print the tables."""
    arguments = _arguments()
    try:
        plan = _plan(arguments)
        config = BenchConfig(
            model=arguments.model, bundle=str(arguments.bundle), plain_bundle=str(arguments.plain_bundle)
        )
        with prepare_models(config) as models:
            for instructions in measured_on(cpu_features()):
                print(f"with {instructions.title}", file=sys.stderr)
                result = measure(models, plan, instructions)
                file = arguments.out / f"peers_{arguments.name}_{instructions.key}.json"
                file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
                console.report(*table([result]).splitlines())
    except GalipError as error:
        console.failure("error", error)
        sys.exit(error.exit_code)


def _arguments() -> argparse.Namespace:
    defaults = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m studies.peers",
        description=studies.peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="the results are called peers_NAME_INSTRUCTIONS.json")
    parser.add_argument("--bundle", type=Path, required=True, help="with fp32, bf16 and int8")
    parser.add_argument("--plain-bundle", type=Path, required=True, help="exported with --rewrites none")
    parser.add_argument("--model", default="", help="the checkpoint of both; the shipped one may be left out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=defaults.peers, metavar="PEER")
    parser.add_argument(
        "--batch", nargs="+", type=int, default=defaults.batches, help="numbers of pictures at once"
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--python", type=Path, default=defaults.python, help="of the peers' environment")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    """Return what the options ask for. Raises `UsageError` for a wrong one."""
    if not arguments.out.is_dir():
        raise UsageError(f"--out is {arguments.out}, which is no folder")
    for option in ("rounds", "threads"):
        if (value := getattr(arguments, option)) is not None:
            check_count(value, f"--{option}")
    for size in arguments.batch:
        check_count(size, "--batch")
    return Plan(
        arguments.peers, tuple(arguments.batch), arguments.rounds,
        threads=arguments.threads, python=arguments.python,
    )  # fmt: skip


if __name__ == "__main__":
    main()
