"""What the commands say of a finished set."""

from collections.abc import Mapping
from typing import Any

from galip_runtime.console import counted
from galip_runtime.sets.progress import duration

__all__ = ["summary_line"]


def summary_line(summary: Mapping[str, Any]) -> str:
    """Return one line about what `SetResult.summary` tells."""
    amount = f"{counted(summary['pictures'], 'picture')} in {counted(summary['shards'], 'shard')}"
    line = f"{summary['folder']}: {amount}"
    if summary["generated"] == 0:
        return f"{line}; all of them were there"
    made = f"{summary['generated']:,} generated in {duration(summary['seconds'])}"
    return f"{line}; {made}, {summary['pictures_per_second']:.1f} pictures/s on {summary['device']}"
