"""The precisions that a bundle may have, and how far each may be from eager PyTorch."""

from collections.abc import Iterable

from galip_runtime.errors import UsageError

__all__ = ["PRECISIONS", "check_precisions", "graph_file"]

PRECISIONS: dict[str, float] = {"fp32": 1e-4}
"""precision -> largest error allowed anywhere, as a share of the standard deviation of what eager gives"""


def check_precisions(precisions: Iterable[str]) -> tuple[str, ...]:
    """`precisions`, each once, in their order. Raises UsageError for an unknown one and for none at all."""
    wanted = [precisions] if isinstance(precisions, str) else list(precisions)
    unknown = [name for name in wanted if name not in PRECISIONS]
    if unknown or not wanted:
        what = (
            f"precision {', '.join(map(repr, unknown))} is not known" if unknown else "no precision was named"
        )
        raise UsageError(f"{what}; there {'is' if len(PRECISIONS) == 1 else 'are'}: {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(wanted))


def graph_file(graph: str, precision: str) -> str:
    """The file of `graph` in `precision`: fp32 goes without a suffix."""
    return f"{graph}.onnx" if precision == "fp32" else f"{graph}.{precision}.onnx"
