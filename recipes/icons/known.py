"""What the shipped model knows, for the page: its styles, and its things as prompts, the commonest first.

PYTHONPATH=recipes python -m icons.known --data data/icons128 --out runtime/js/demo/known.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from galip_runtime.files import sha256_file, write_atomically

from galip.assets import STYLES, default_checkpoint
from galip.data.conditions import excluded
from galip.data.shards import read_metas
from icons.commands import exit_on_error
from icons.selection import JUDGED_SEEN

__all__ = ["known"]


def known(data: Path) -> dict[str, Any]:
    """Return the shipped checkpoint's sha256, its styles, and the prompts of the things it was trained on.

    Raises as `read_metas`.
    """
    things = {
        meta["captions"][0].removesuffix(f", {meta['style']}"): (meta["rank"], meta["order"])
        for meta in read_metas(data, "train")
        if not excluded(meta, JUDGED_SEEN)
    }
    return {
        "source": sha256_file(default_checkpoint()),
        "styles": STYLES,
        "things": sorted(things, key=things.__getitem__),
    }


@exit_on_error("icons.known")
def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    write_atomically(options.out, (json.dumps(known(options.data), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
