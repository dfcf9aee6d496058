"""Tables of result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galip_bench.formatting import format_ms, pictures_of
from galip_bench.markdown import markdown_list, markdown_table, markdown_text
from galip_bench.statistics import median

from studies.harness import ratio_text
from studies.peers.loaders import BASE

__all__ = ["table"]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown of result files: a table each, a row a peer, and which peers do not run."""
    return "\n\n".join(_table(result) for result in results)


def _table(result: Mapping[str, Any]) -> str:
    peers = result["peers"]
    size, base = result["bundle"]["image_height"], peers[BASE]["seconds"]
    columns = [""]
    for batch in base:
        columns += [f"{pictures_of(int(batch))}, ms", f"share of {BASE} (95 %)"]
    rows = [[f"`{peer}`", *_cells(found, base)] for peer, found in peers.items()]
    parts = [
        f"**{size}×{size}, {markdown_text(result['instructions']['title'])}**",
        markdown_table([*columns, "largest error, % of std", "least PSNR, dB"], rows),
    ]
    if unavailable := result["unavailable"]:
        reasons = [f"{peer} was not measured: {_brief(reason)}" for peer, reason in unavailable.items()]
        parts.append(markdown_list(reasons))
    parts.append(markdown_text(_source(result)))
    return "\n\n".join(parts)


def _brief(reason: str) -> str:
    """Return an error's text without its class and without what to do about it."""
    message = reason.partition("Error: ")[2] or reason
    return message.partition("; ")[0]


def _cells(found: Mapping[str, Any], base: Mapping[str, Sequence[float]]) -> list[str]:
    cells = []
    for batch, samples in found["seconds"].items():
        cells.append(format_ms(median(samples)))
        cells.append("1" if samples == base[batch] else ratio_text(samples, base[batch]))
    decibels = found["least_psnr"]
    return [
        *cells,
        f"{100 * found['largest_error']:.2g}",
        "equal" if decibels is None else f"{decibels:.1f}",
    ]


def _source(result: Mapping[str, Any]) -> str:
    machine, threads = result["machine"], result["threads"]
    libraries = dict.fromkeys(found["library"] for found in result["peers"].values())
    environment = [f"{name}={value}" for name, value in result["instructions"]["environment"].items()]
    facts = [
        machine["cpu"], f"threads: {threads} of {machine['usable_cores']} usable cores",
        " ".join([*machine["cpu_features"], *environment]), machine["system"], f"Python {machine['python']}",
        *libraries, f"commit {(machine['commit'] or 'unknown')[:12]}",
    ]  # fmt: skip
    return f"{', '.join(facts)}; {result['rounds']} rounds, {result['pictures']} pictures compared."
