"""The command `python -m galip_runtime.sets PROMPTS --out DIR`, which needs neither galip nor PyTorch."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galip_runtime import console
from galip_runtime.command_line import INTERRUPTED, Parser
from galip_runtime.errors import GalipError
from galip_runtime.sets.options import FORMATS, HELP, LAYOUTS, SetOptions, parse_seeds
from galip_runtime.sets.report import summary_line

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    as_json = options.pop("json")
    try:
        from galip_runtime.sets.generate import generate_set
        from galip_runtime.sets.progress import SetProgress

        result = generate_set(
            SetOptions(**{**options, "seeds": parse_seeds(options["seeds"])}), SetProgress()
        )
        if as_json:
            console.result(*console.json_lines(result.summary()))
        else:
            console.report(summary_line(result.summary()))
        result.check()
    except GalipError as error:
        console.failure("error", error)
        return error.exit_code
    except KeyboardInterrupt:
        console.message("interrupted; the same command goes on with what is missing")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m galip_runtime.sets",
        usage="%(prog)s PROMPTS --out DIR [option ...]",
        description="Generate many pictures into shards. The same command goes on where it was stopped.",
    )
    parser.add_argument("prompts", metavar="PROMPTS", type=Path, help=_help("prompts"))
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help=_help("out"))
    choices: dict[str, dict[str, Any]] = {
        "count": {"type": int, "default": 1, "metavar": "N"},
        "seeds": {"metavar": "LIST"},
        "seed": {"type": int, "metavar": "S"},
        "truncation": {"type": float, "metavar": "T"},
        "bundle": {"type": Path, "metavar": "DIR"},
        "device": {"default": "auto"},
        "precision": {"default": "auto"},
        "threads": {"type": int, "metavar": "N"},
        "shard_size": {"type": int, "default": 1000, "metavar": "N"},
        "format": {"choices": list(FORMATS), "default": "png"},
        "layout": {"choices": LAYOUTS, "default": "webdataset"},
        "workers": {"type": int, "metavar": "N"},
        "ray": {"metavar": "ADDRESS"},
        "json": {"action": "store_true"},
    }
    for name, settings in choices.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=_help(name), **settings)
    return parser


def _help(name: str) -> str:
    return HELP[name].replace("%", "%%")


if __name__ == "__main__":
    sys.exit(console.run(main, "error"))
