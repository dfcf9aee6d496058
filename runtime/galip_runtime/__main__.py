"""The command `python -m galip_runtime [BUNDLE] PROMPT... -o FILE`, which needs neither galip nor PyTorch."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from galip_runtime import console
from galip_runtime.backends.tables import DEVICES
from galip_runtime.command_line import INTERRUPTED, Parser
from galip_runtime.errors import FileRefused, GalipError, UsageError

__all__ = ["main"]

_SHIPPED = "default"
"""in place of a bundle's folder"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        result = _run(options)
    except GalipError as error:
        console.failure("error", error)
        return error.exit_code
    except KeyboardInterrupt:
        console.message("interrupted; nothing was written")
        return INTERRUPTED
    if options.json:
        console.result(*console.json_lines(result))
    else:
        seeds = sorted(set(result["seeds"]))
        label = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        console.message(f"{label}, {result['seconds'] * 1000:.0f} ms a picture on {result['device']}")
        console.report(result["file"])
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    # imported here, because --help needs none of it
    from galip_runtime.image import check_size, check_target, grid, grid_size, save_picture
    from galip_runtime.loading import load
    from galip_runtime.noise import check_truncation
    from galip_runtime.text_to_image import seed_series

    bundle, prompts = _bundle_and_prompts(options.texts)
    check_target(options.out)
    check_truncation(options.truncation)
    seeds = seed_series(options.seed, options.count)
    # one row a prompt, unless there is only one prompt
    columns = len(seeds) if len(prompts) > 1 < len(seeds) else None
    model = load(
        bundle,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        fallback=options.fallback,
    )
    side = (model.dimensions.image_height, model.dimensions.image_width)
    check_size(options.out, *grid_size(len(prompts) * len(seeds), *side, columns))
    repeated = [prompt for prompt in prompts for _ in seeds]
    started = time.perf_counter()
    pictures = model.generate(repeated, seeds * len(prompts), truncation=options.truncation)
    seconds = (time.perf_counter() - started) / len(pictures)
    metadata = model.metadata(prompts, seeds, options.truncation) if options.metadata else None
    save_picture(grid(pictures, columns), options.out, metadata)
    return {
        "file": options.out,
        "prompts": repeated,
        "seeds": seeds * len(prompts),
        "seconds": seconds,
        "device": model.settings.device,
        "precision": model.info()["precision"]["generator"],
    }


def _bundle_and_prompts(texts: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Divide the command's texts into a bundle's folder, None for the shipped model's, and the prompts.

    A text alone is a prompt. Raises UsageError for a bundle alone, FileRefused if the first of several texts
    names no bundle.
    """
    from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
    from galip_runtime.shipped import advice

    first, *prompts = texts
    is_bundle = os.path.exists(os.path.join(first, MANIFEST_NAME))
    if not prompts:
        if is_bundle or first == _SHIPPED:
            raise UsageError(
                f"{first} is a bundle, and the prompt is missing: say what to show. Where {first!r} is the "
                f"prompt, write {_SHIPPED} {first!r}"
            )
        return None, texts
    if first == _SHIPPED:
        return None, prompts
    if not is_bundle:
        with advice(
            FileRefused, f"The first of several texts is the bundle; for the shipped model: {_SHIPPED}"
        ):
            read_manifest(first)
    return first, prompts


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m galip_runtime",
        usage="%(prog)s [BUNDLE] PROMPT ... -o FILE [--seed S] [--count N] [option ...]",
        description="Generate pictures from prompts, with the shipped model or with a bundle of yours. "
        "Several pictures make one grid.",
        epilog="Exit codes: 0 done, 1 unexpected, 2 usage, 3 the picture is not finite, 4 a file is refused, "
        "5 the device is not available.",
    )
    parser.add_argument(
        "texts",
        metavar="[BUNDLE] PROMPT",
        nargs="+",
        help='what to show, such as "a red apple"; before several prompts, and to use a model of yours, the '
        f"folder that `galip export` wrote, or the word {_SHIPPED} for the shipped model (a folder of that "
        f"name is ./{_SHIPPED})",
    )
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help=".png, .jpg or .webp")
    parser.add_argument(
        "--seed",
        type=_whole,
        metavar="S",
        help="0 to 2^64-1; the same seed gives the same picture (random)",
    )
    parser.add_argument(
        "--count", type=_whole, default=1, metavar="N", help="pictures a prompt, with the seeds S, S+1, … (1)"
    )
    parser.add_argument(
        "--truncation", type=float, metavar="T", help="cut the noise at ±T: plainer pictures, less variety"
    )
    parser.add_argument("--device", default="auto", help=f"{', '.join(DEVICES)} (auto)")
    parser.add_argument(
        "--fallback", action="store_true", help="coreml, directml: let the CPU run what the device cannot"
    )
    parser.add_argument("--precision", default="auto", help="auto or one that the bundle has (auto)")
    parser.add_argument("--threads", type=_whole, metavar="T", help="CPU threads (all that may be used)")
    parser.add_argument(
        "--no-metadata",
        dest="metadata",
        action="store_false",
        help="leave prompt, seed and the bundle's digest out of a PNG's text chunks",
    )
    parser.add_argument("--json", action="store_true", help="print file, prompts, seeds and time as JSON")
    return parser


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a whole number") from error


if __name__ == "__main__":
    sys.exit(console.run(main, "error"))
